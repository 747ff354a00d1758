"""Text out of files on its way to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` out of a file, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)

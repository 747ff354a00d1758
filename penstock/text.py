"""Text out of files on its way to a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """``text`` out of a file, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)


def counted(number: int, noun: str) -> str:
    """``1 node``, ``1,234 nodes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def one_line(text: str) -> str:
    """A message as one line that can be printed: names in it may be anybody's."""
    return printable(" ".join(text.split()))


def prose(text: str) -> str:
    """What a model says, with nothing in it that a terminal obeys: its lines stay, and characters
    that join others, such as parts of emojis."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in _OBEYED else "?" for c in text
    )


#: Control characters, and halves of characters, which no terminal can show.
_OBEYED = frozenset({"Cc", "Cs"})

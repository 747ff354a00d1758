"""What error messages share."""

from __future__ import annotations

from typing import Any


def shorten(value: Any, limit: int = 120) -> str:
    """The value as a piece of a one-line message: files may hold names and lists of any length."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."

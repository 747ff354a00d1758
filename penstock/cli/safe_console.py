"""Rich's console, for names out of files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from penstock.text import printable


class SafeConsole(Console):
    """A console whose own styles and movements alone reach the terminal: in what it is given to
    print, characters that a terminal obeys are replaced. Where ``NO_COLOR`` is set there are no
    styles at all: rich itself leaves the bold ones."""

    def __init__(self, **options: Any) -> None:
        if no_color():
            options["color_system"] = None
        super().__init__(**options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = segment.text.split("\n")
                yield Segment("\n".join(map(printable, lines)), segment.style)


def no_color() -> bool:
    """Whether the user wants no styles (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))

"""Pages that a command writes whole: never without a row that was measured elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from benchmarks import ROOT


def write_page(page: Path, text: str, known: Collection[str]) -> None:
    """Writes ``text``, unless ``page`` has rows (or sections) of the ``known`` ones that it lacks:
    what was measured is kept in ``build/``, which a fresh clone does not have. Says what it did."""
    name = os.path.relpath(page, ROOT)
    before = shown(page.read_text(encoding="utf-8")) if page.exists() else set()
    if lost := [key for key in known if key in before - shown(text)]:
        print(
            f"{name} is left as it is: it has rows that were not measured here, {lost[0]} for"
            " instance; put the new ones in by hand, or measure all"
        )
        return
    page.write_text(text, encoding="utf-8")
    print(f"written: {name}")


def shown(text: str) -> set[str]:
    """What a page has: headings, and rows of tables by their first cell and by their first two."""
    found: set[str] = set()
    for line in text.splitlines():
        if line.startswith("#"):
            found.add(line.lstrip("# "))
        elif line.startswith("| "):
            first, second, *_ = [*(cell.strip() for cell in line[2:].split(" | ")), ""]
            found |= {first, f"{first} {second}"}
    return found

"""Parts of pages that commands write: what is between two comments."""

from __future__ import annotations

from benchmarks import ROOT


def write_section(page: str, name: str, text: str) -> None:
    """Puts ``text`` into ``docs/PAGE``, between the comments ``NAME: begin`` and ``NAME: end``."""
    path = ROOT / "docs" / page
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    head, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, also, tail = rest.partition(end)
    if not found or not also:
        raise ValueError(f"{path} has no section {name}")
    path.write_text(f"{head}{begin}{text}{end}{tail}", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

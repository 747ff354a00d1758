"""``python -m fuzz.page``: the table in docs/security.md, from what ``make fuzz`` found."""

from __future__ import annotations

from pathlib import Path

from fuzz.corpus import ROOT
from fuzz.drive import Tally

PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- fuzz: begin -->\n", "<!-- fuzz: end -->\n"
NAMES = {
    "auto": "Penstock, `engine=\"auto\"`",
    "xnnpack": "Penstock, `engine=\"xnnpack\"`",
    "native": "Penstock, `engine=\"native\"`",
    "executorch": "the stock runtime",
}  # fmt: skip


def table(folder: Path) -> str:
    """A row for each runtime that was tried."""
    lines = [
        "| | files | refused | ran | too large to run | before | crashes | hangs | other errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for runtime, name in NAMES.items():
        path = folder / f"{runtime}.json"
        if not path.exists():
            continue
        tally = Tally.load(path)
        found = tally.outcomes
        refused = sum(count for what, count in found.items() if what.startswith("refused"))
        counts = (
            tally.tried, refused, found["ran"], found["too large to run"],
            found["before a crash or hang"], len(tally.crashes), len(tally.hangs), found["failed"],
        )  # fmt: skip
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    text = PAGE.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(head + BEGIN + table(ROOT / "build" / "fuzz") + END + tail)


if __name__ == "__main__":
    main()

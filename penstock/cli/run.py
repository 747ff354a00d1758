"""``penstock run``: the same work as ``xnn_executor_runner``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from penstock.cli.completion import ENGINE_NAMES, PROGRAMS, among
from penstock.cli.options import DataPath, Json, MethodName, ThreadCount
from penstock.cli.run_file import PRINT_CHOICES, RunRequest, run_file, show, show_json, split_names
from penstock.errors import InputError


def run_command(
    file: Annotated[str, typer.Argument(help="The .pte file.", autocompletion=PROGRAMS)],
    inputs: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(
            help="Input files, separated by commas: .npy, .npz, images or raw bytes. Default: ones."
        ),
    ] = None,
    data_path: DataPath = None,
    output_file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Where the outputs go: NAME.npz, NAME.npy, or NAME for raw files."),
    ] = None,
    print_output: Annotated[
        str, typer.Option(help="none, summary or all.", autocompletion=among(*PRINT_CHOICES))
    ] = "summary",
    num_executions: Annotated[
        int, typer.Option("--num-executions", "-n", help="With more than one, print the latency.")
    ] = 1,
    threads: ThreadCount = None,
    engine: Annotated[
        str,
        typer.Option(
            autocompletion=ENGINE_NAMES,
            help="What runs delegates: auto (the fastest here), xnnpack (the stock runtime's bits),"
            " native.",
        ),
    ] = "auto",
    method_name: MethodName = None,
    labels: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Names the likeliest classes of a classifier: imagenet, or a text file with one "
            "name in each line."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the outputs and errors.")] = False,
    as_json: Json = False,
) -> None:
    """Run a .pte file.

    Example: penstock run mv2_xnnpack_q8.pte --inputs photograph.jpg --labels imagenet
    """
    if print_output not in PRINT_CHOICES:
        raise InputError(f"--print-output is {print_output!r}; give none, summary or all")
    report = run_file(
        RunRequest(
            model_path=file,
            inputs=split_names(inputs),
            data_paths=split_names(data_path),
            method_name=method_name,
            threads=threads,
            engine=engine,
            executions=num_executions,
            output_file=output_file,
            labels=labels,
        )
    )
    if as_json:
        show_json(report, print_output=print_output)
    else:
        show(report, print_output=print_output, quiet=quiet)

"""``penstock run``: the same work as ``xnn_executor_runner``, and with ``--batch`` the rows of a
Parquet file."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from penstock.cli.batch import run_batch
from penstock.cli.completion import ENGINE_NAMES, PROGRAMS, TABLES, among
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
        typer.Option(
            "--output-file",
            "--output",
            help="Where the outputs go: NAME.npz, NAME.npy, or NAME for raw files; with --batch "
            "NAME.parquet.",
        ),
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
    batch: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="A Parquet file: run every row of it; a run that was stopped goes on.",
            autocompletion=TABLES,
        ),
    ] = None,
    columns: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With --batch: the columns that are the inputs, in order, separated by commas."
        ),
    ] = None,
    keep: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --batch: the columns to hand on. Default: all others."),
    ] = None,
    batch_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="With --batch: rows of one call, where the program takes several."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print the outputs and errors alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a .pte file.

    Example: penstock run mv2_xnnpack_q8.pte --inputs photograph.jpg --labels imagenet

    Example: penstock run mv2_xnnpack_q8.pte --batch images.parquet --output answers.parquet
    """
    if batch is not None:
        if inputs is not None or num_executions != 1 or print_output != "summary":
            raise InputError(
                "--batch takes its inputs from the Parquet file and prints no outputs; leave"
                " --inputs, --num-executions and --print-output out"
            )
        run_batch(
            file,
            batch,
            output_file,
            columns=columns,
            keep=keep,
            labels=labels,
            data_path=data_path,
            engine=engine,
            method=method_name,
            batch_size=batch_size,
            threads=threads,
            quiet=quiet,
            as_json=as_json,
        )
        return
    for option, value in (("columns", columns), ("keep", keep), ("batch-size", batch_size)):
        if value is not None:
            raise InputError(f"--{option} goes with --batch; give a Parquet file to it")
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

"""``xnn_executor_runner`` and ``executor_runner``, with the options of ExecuTorch's own."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from penstock.cli.command import SafeCommand
from penstock.cli.console import run_app
from penstock.cli.run_file import PRINT_CHOICES, RunRequest, run_file, show, show_json, split_names
from penstock.errors import InputError

# typer reads these at run time, hence Optional and not "| None".
_ModelPath = Annotated[
    str, typer.Option("--model_path", "--model-path", help="The .pte file to run.", metavar="FILE")
]
_Inputs = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--inputs",
        help="Input files, separated by commas: .npy, .npz (one input for each array), images"
        " (resized to cover the input, cropped at the centre, normalised as the program says, else"
        " as for ImageNet), or raw bytes. Default: all ones.",
        metavar="FILES",
    ),
]
_DataPath = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--data_path",
        "--data-path",
        help="The data files (.ptd), separated by commas, of a program that does not hold its"
        " weights itself.",
        metavar="FILES",
    ),
]
_OutputFile = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--output_file",
        "--output-file",
        help="Where the outputs go: NAME.npz, NAME.npy, or NAME for raw files NAME-0.bin, ...",
        metavar="NAME",
    ),
]
_PrintOutput = Annotated[
    str,
    typer.Option("--print_output", "--print-output", help="none, summary or all.", metavar="HOW"),
]
_Executions = Annotated[
    int,
    typer.Option(
        "--num_executions",
        "--num-executions",
        help="Run so many times; with more than one, print min, median and p95 latency.",
    ),
]
_Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--cpu_threads",
        "--cpu-threads",
        help="Threads. Default, also as -1: one for each CPU.",
    ),
]
_Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What runs delegates: auto (the fastest here), xnnpack (the stock runtime's bits),"
        " native.",
        metavar="NAME",
    ),
]
_MethodName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--method_name", "--method-name", help="Default: forward, or the only one there is."
    ),
]
_EtdumpPath = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--etdump_path",
        "--etdump-path",
        help="Measure the executions and write them as an ETDump for ExecuTorch's Inspector.",
        metavar="FILE",
    ),
]
_Labels = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--labels",
        help="Names the likeliest classes of a classifier: imagenet, or a text file with one name"
        " in each line.",
        metavar="NAMES",
    ),
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Print the outputs and errors alone.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]

#: How ExecuTorch's runner writes the default number of threads.
_BY_DEFAULT = -1


def _app(help: str, delegates: frozenset[str] | None) -> typer.Typer:
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.command(help=help, cls=SafeCommand)
    def run(
        model_path: _ModelPath,
        data_path: _DataPath = None,
        inputs: _Inputs = None,
        output_file: _OutputFile = None,
        print_output: _PrintOutput = "summary",
        num_executions: _Executions = 1,
        cpu_threads: _Threads = None,
        engine: _Engine = "auto",
        method_name: _MethodName = None,
        labels: _Labels = None,
        etdump_path: _EtdumpPath = None,
        quiet: _Quiet = False,
        as_json: _Json = False,
    ) -> None:
        if print_output not in PRINT_CHOICES:
            raise InputError(f"--print_output is {print_output!r}; give none, summary or all")
        request = RunRequest(
            model_path=model_path,
            inputs=split_names(inputs),
            data_paths=split_names(data_path),
            method_name=method_name,
            threads=None if cpu_threads == _BY_DEFAULT else cpu_threads,
            engine=engine,
            executions=num_executions,
            output_file=output_file,
            delegates=delegates,
            labels=labels,
            etdump=etdump_path or None,
        )
        report = run_file(request)
        if as_json:
            show_json(report, print_output=print_output)
        else:
            show(report, print_output=print_output, quiet=quiet)

    return app


def xnn_executor_runner() -> None:
    """Entry point: runs programs with XNNPACK and the kernels."""
    run_app(_app("Run a .pte file with XNNPACK and the kernels.", None))


def executor_runner() -> None:
    """Entry point: runs programs with the kernels, without any delegate."""
    run_app(_app("Run a .pte file that needs no delegate, with the kernels alone.", frozenset()))

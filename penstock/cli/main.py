"""The ``penstock`` command."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import rich_utils

from penstock import __version__
from penstock.cli.bench import bench_command
from penstock.cli.chat import chat_command
from penstock.cli.command import Command
from penstock.cli.compare import compare_command
from penstock.cli.compile import CompileCommand, compile_command
from penstock.cli.console import run_app
from penstock.cli.generate import generate_command
from penstock.cli.inspect import inspect_command
from penstock.cli.models import models_command
from penstock.cli.profile import profile_command
from penstock.cli.quantize_report import quantize_report_command
from penstock.cli.run import run_command
from penstock.cli.safe_console import no_color

app = typer.Typer(
    name="penstock",
    help="Compiles PyTorch models into .pte files in which XNNPACK does the work, and runs them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What comes before a command."""


app.command("compile", cls=CompileCommand)(compile_command)
app.command("run", cls=Command)(run_command)
app.command("inspect", cls=Command)(inspect_command)
app.command("quantize-report", cls=Command)(quantize_report_command)
app.command("profile", cls=Command)(profile_command)
app.command("bench", cls=Command)(bench_command)
app.command("compare", cls=Command)(compare_command)
app.command("models", cls=Command)(models_command)
app.command("generate", cls=Command)(generate_command)
app.command("chat", cls=Command)(chat_command)


def main() -> None:
    """The entry point."""
    if no_color():
        rich_utils.COLOR_SYSTEM = None  # typer's own help
    run_app(app, "penstock")


if __name__ == "__main__":
    main()

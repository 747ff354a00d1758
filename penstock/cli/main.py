"""The ``penstock`` command."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer import rich_utils
from typer.core import TyperGroup

from penstock import __version__
from penstock.cli.bench import bench_command
from penstock.cli.chat import chat_command
from penstock.cli.command import Command
from penstock.cli.compare import compare_command
from penstock.cli.compile import CompileCommand, compile_command
from penstock.cli.console import errors_in_one_line
from penstock.cli.generate import generate_command
from penstock.cli.inspect import inspect_command
from penstock.cli.models import models_command
from penstock.cli.profile import profile_command
from penstock.cli.quantize_report import quantize_report_command
from penstock.cli.run import run_command
from penstock.cli.safe_console import no_color


class Commands(TyperGroup):
    """Ctrl-C ends a command with one line and exit code 130, whatever typer makes of it."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None


app = typer.Typer(
    cls=Commands,
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
    """The entry point: errors of Penstock come out as one line."""
    if no_color():
        rich_utils.COLOR_SYSTEM = None  # typer's own help and errors
    with errors_in_one_line():
        app(prog_name="penstock")


if __name__ == "__main__":
    main()

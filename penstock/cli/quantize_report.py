"""``penstock quantize-report``."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape
from rich.table import Table

from penstock.cli.completion import among, models
from penstock.cli.console import Stages, hush_libraries
from penstock.cli.options import Calibration, ModelWeights, Seed
from penstock.cli.output import writable
from penstock.cli.safe_console import SafeConsole
from penstock.cli.tables import print_table
from penstock.compiler.quantize.cost import HEADINGS, QuantizationCost, row
from penstock.compiler.quantize.quantization import SCHEMES, Quantization, parse_scheme
from penstock.pages import write_page
from penstock.text import printable

if TYPE_CHECKING:
    from penstock.cli.sources import Source


def quantize_report_command(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=models,
            help="A model of the zoo (see: penstock models), package.module:callable that gives "
            "(module, args), or a .pt2 archive.",
        ),
    ],
    scheme: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(
            autocompletion=among(*SCHEMES),
            help=f"{', '.join(SCHEMES)}; default: the one that suits the model.",
        ),
    ] = None,
    calibration: Calibration = None,
    calibration_batches: Annotated[
        int, typer.Option(min=1, help="At most so many samples to calibrate with.")
    ] = 16,
    held_out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Data of the same form to measure on; default: samples of the calibration data "
            "that nothing was calibrated with."
        ),
    ] = None,
    held_out_batches: Annotated[
        int, typer.Option(min=1, help="At most so many samples to measure on.")
    ] = 16,
    weights: ModelWeights = None,
    seed: Seed = 0,
    rows: Annotated[int, typer.Option(min=1, help="So many layers in the table.")] = 20,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a page with bars, histograms and all layers."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the stages.")] = False,
) -> None:
    """Show what int8 costs each layer of a model, the worst first.

    Example: penstock quantize-report mv2 --held-out pictures/ --html mv2.html
    """
    stages = Stages(quiet=quiet or as_json)
    asked = None if scheme is None else parse_scheme(scheme)
    if html is not None:
        writable(html, "--html")
    with stages.stage("model"):
        hush_libraries()
        from penstock.cli import sources
        from penstock.cli.calibration import split_data

        source = sources.find(model, weights=weights, seed=seed)
    if source.notice:
        stages.say(source.notice)
    seen, unseen = split_data(
        calibration, held_out, source, (calibration_batches, held_out_batches)
    )
    quantization = Quantization(scheme=asked or source.scheme)
    cost = _cost(source, quantization, (seen, unseen), stages)
    if html is not None:
        write_page(
            html, "quantization", f"{source.name} in int8",
            {"model": source.name, **{f.name: getattr(cost, f.name) for f in fields(cost)}},
        )  # fmt: skip
    if as_json:
        print(json.dumps({"model": source.name, **cost.as_dict()}, allow_nan=False))
        return
    console = SafeConsole(highlight=False)
    wide = console if console.is_terminal else SafeConsole(highlight=False, width=120)
    for line in cost.summary():
        console.print(printable(line), markup=False, soft_wrap=True)
    print_table(wide, table(cost, rows), _WORDS)
    if len(cost.quantized) > rows:
        rest = len(cost.quantized) - rows
        console.print(f"and {rest} more, with less error of their own (--rows, --json)")


def _cost(
    source: Source,
    quantization: Quantization,
    data: tuple[list[object] | None, list[object] | None],
    stages: Stages,
) -> QuantizationCost:
    import penstock

    lowered = penstock.lower(
        source.model, source.args, source.kwargs, dynamic_shapes=source.dynamic_shapes,
        quantize=quantization, calibration=data[0], held_out=data[1], progress=stages,
    )  # fmt: skip
    report = lowered.quantization
    assert report is not None
    return report.cost(progress=stages)


#: The columns that are no figures.
_WORDS = ("layer", "module")


def table(cost: QuantizationCost, rows: int) -> Table:
    """The worst layers of ``cost``, ``rows`` of them."""
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        words = heading in _WORDS
        result.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for layer in cost.quantized[:rows]:
        result.add_row(*map(escape, map(printable, row(layer))))
    return result

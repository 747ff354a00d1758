"""``penstock compile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from penstock.cli.command import Command
from penstock.cli.completion import among, models
from penstock.cli.console import Stages
from penstock.cli.options import Calibration, ModelWeights, Seed
from penstock.cli.safe_console import SafeConsole
from penstock.compiler.quantize.quantization import SCHEMES
from penstock.errors import InputError


def compile_command(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=models,
            help="A model of the zoo (see: penstock models), package.module:callable or "
            "file.py:callable that gives (module, args), or a .pt2 archive. Where it gives the "
            "module alone, the shapes of its inputs stand behind: "
            "torchvision.models:resnet34@1x3x224x224. A language model: smollm2, a Hugging Face "
            "folder, or a .gguf file.",
        ),
    ],
    quantize: Annotated[
        bool, typer.Option("--quantize", "-q", help="8-bit, by the scheme that suits the model.")
    ] = False,
    scheme: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(
            autocompletion=among(*SCHEMES, "dynamic_4bit", "as_stored", "none"),
            help=f"8-bit, by this scheme: {', '.join(SCHEMES)}. Of language models also "
            "dynamic_4bit, as_stored (GGUF's own integers) or none.",
        ),
    ] = None,
    max_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Of language models: how many tokens a conversation may have."),
    ] = None,
    cache: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            autocompletion=among("float32", "int8"),
            help="Of language models: how keys and values are held, float32 or int8.",
        ),
    ] = None,
    delegate: Annotated[
        bool, typer.Option("--delegate/--no-delegate", help="Give the graph to XNNPACK.")
    ] = True,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Where the file goes.")
    ] = Path("."),
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", help="The file itself; default: <model>_xnnpack_<fp32|q8>.pte."),
    ] = None,
    weights: ModelWeights = None,
    seed: Seed = 0,
    calibration: Calibration = None,
    calibration_batches: Annotated[
        int, typer.Option(min=1, help="At most so many samples are taken.")
    ] = 16,
    accuracy_budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            metavar="DB",
            help="With --quantize: keep in float the fewest operators with which the results are "
            "so many decibels above their error, on held-out data.",
        ),
    ] = None,
    held_out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Data for the accuracy budget, of the same form as --calibration; default: "
            "samples of the calibration data that nothing was calibrated with."
        ),
    ] = None,
    dynamic_shapes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--dynamic-shapes",
            help="A dimension that may vary, as INPUT:DIM=NAME[LOW..HIGH], for example "
            "x:0=batch[1..8]. Can be given several times; a name's range once.",
        ),
    ] = None,
    etrecord: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--etrecord",
            help="Write an ETRecord for ExecuTorch's Inspector too: to this file, or without a name"
            " beside the program.",
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", "-t", help="Run the file and compare it with eager PyTorch.")
    ] = False,
    print_graph: Annotated[bool, typer.Option(help="Print the lowered graph.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
) -> None:
    """Compile a model into a .pte file.

    Example: penstock compile mv2 --quantize --test --output-dir compiled
    """
    from penstock.cli.language import LanguageRequest, compile_language_model
    from penstock.cli.pipeline import Request, compile_model
    from penstock.cli.summary import as_dict, as_table
    from penstock.llm.export.named import is_checkpoint

    stages = Stages(quiet=quiet or as_json)
    if is_checkpoint(model):
        _refuse(
            weights=weights, calibration=calibration, dynamic_shapes=dynamic_shapes,
            quantize=quantize, test=test, no_delegate=not delegate, etrecord=etrecord is not None,
            accuracy_budget=accuracy_budget, held_out=held_out,
        )  # fmt: skip
        asked = LanguageRequest(model, scheme, max_length, cache or "float32", output_dir, output)
        outcome = compile_language_model(asked, stages)
    else:
        for name, value in (("--max-length", max_length), ("--cache", cache)):
            if value is not None:
                raise InputError(f"{name} is for language models, and {model!r} is none")
        request = Request(
            source=model,
            quantize=quantize,
            scheme=scheme,
            delegate=delegate,
            output_dir=output_dir,
            output=output,
            weights=weights,
            seed=seed,
            calibration=calibration,
            calibration_batches=calibration_batches,
            accuracy_budget=accuracy_budget,
            held_out=held_out,
            dynamic_shapes=tuple(dynamic_shapes or ()),
            test=test,
            etrecord=etrecord,
        )
        outcome = compile_model(request, stages)
    if as_json:
        print(json.dumps(as_dict(outcome), indent=2))
    elif not quiet:
        console = SafeConsole(highlight=False)
        if print_graph:
            console.print(str(outcome.lowered.graph), markup=False, soft_wrap=True)
        console.print(as_table(outcome))


class CompileCommand(Command):
    """``compile``, with a name after ``--etrecord`` or none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        for position, argument in enumerate(args):
            following = args[position + 1 : position + 2]
            if argument == "--etrecord" and (not following or following[0].startswith("-")):
                given[position] = "--etrecord="
        return super().parse_args(ctx, given)


def _refuse(**given: object) -> None:
    """Raises :class:`InputError` for options that language models have no use for."""
    for name, value in given.items():
        if value:
            raise InputError(
                f"--{name.replace('_', '-')} is not for language models; --scheme, --max-length "
                "and --cache are"
            )

"""``penstock compare``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.console import Stages
from penstock.cli.options import Charts, Json, ModelWeights, QuietTable, SampleInputs, ThreadCount
from penstock.cli.output import writable
from penstock.cli.safe_console import SafeConsole
from penstock.cli.tables import print_table
from penstock.errors import InputError
from penstock.pages import write_page
from penstock.pages.document import plain
from penstock.runtime.inputs import check_shape
from penstock.runtime.specs import Spec, TensorSpec
from penstock.text import counted
from penstock.tools.compare import CompareReport, Layer, ProgramSide, Side, compare
from penstock.tools.samples import random_inputs

if TYPE_CHECKING:
    from penstock.cli.sources import Source

_HELP = """Compare two programs, or a program and its model, layer by layer.

Both run on the same inputs. Says whether the outputs agree, and where intermediate values first
diverge: by signal to noise (SQNR, in dB) and the largest difference. The values are those of the
model's own operators, inside the delegates too.

Example: penstock compare mv2_xnnpack_fp32.pte mv2_xnnpack_q8.pte --model mv2
"""

#: What counts as agreement, in dB, where nothing is quantized, and where something is.
FLOAT_DB, INTEGER_DB = 60.0, 20.0


def compare_command(
    first: Annotated[
        str,
        typer.Argument(
            help="A .pte file; or a model of the zoo or package.module:callable, which stands for "
            "eager PyTorch."
        ),
    ],
    second: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Argument(
            help="The other one. Left out: --model, or the same file on another engine."
        ),
    ] = None,
    engine_a: Annotated[
        str, typer.Option(help="What runs the first file's delegates: auto, xnnpack, native.")
    ] = "auto",
    engine_b: Annotated[str, typer.Option(help="What runs the second file's.")] = "auto",
    data_path_a: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="The first file's data files (.ptd), separated by commas; where it is the only "
            "one, those of both sides."
        ),
    ] = None,
    data_path_b: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The second file's data files."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Whose samples are taken: a model of the zoo or package.module:callable."
        ),
    ] = None,
    weights: ModelWeights = None,
    inputs: SampleInputs = None,
    samples: Annotated[int, typer.Option(min=1, help="How many samples or random inputs.")] = 4,
    seed: Annotated[int, typer.Option(help="Of random inputs.")] = 0,
    agree: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help=f"From how many dB on values agree. Default: {FLOAT_DB:.0f}, or {INTEGER_DB:.0f} "
            "where a file is quantized."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, help="Show so many layers, those that lose most; 0 for all.")
    ] = 25,
    threads: ThreadCount = None,
    html: Charts = None,
    quiet: QuietTable = False,
    as_json: Json = False,
) -> None:
    """Compare two programs, or a program and its model, layer by layer."""
    from penstock.cli.run_file import split_names

    stages = Stages(quiet=quiet or as_json)
    if html is not None:
        writable(html, "--html")
    if agree is not None and math.isnan(agree):
        raise InputError("--agree is nan; give decibels, 40 for instance")
    if second is None and engine_a == engine_b:
        if model is None:
            raise InputError(
                "name a second file or model; or two engines for the one file, --engine-a native "
                "--engine-b xnnpack"
            )
        second = model
    elif second is None:
        second, data_path_b = first, data_path_b or data_path_a
    if not (_is_file(first) or _is_file(second)):
        raise InputError(f"neither {first!r} nor {second!r} is a .pte file; give at least one")
    sources = _Sources(stages, weights)
    sides = [
        _side(name, engine, split_names(data), first == second, threads, sources)
        for name, engine, data in (
            (first, engine_a, data_path_a),
            (second, engine_b, data_path_b),
        )
    ]
    programs = [side for side in sides if isinstance(side, ProgramSide)]
    if len(programs) == 1 and isinstance(sides[0], ProgramSide):
        sides.reverse()  # the model is the reference
    named = model or next((name for name in (first, second) if not _is_file(name)), None)
    given, about = _inputs(programs, inputs, named, samples, seed, sources)
    threshold = agree
    if threshold is None:
        threshold = INTEGER_DB if any(program.quantized for program in programs) else FLOAT_DB
    with stages.stage("compare", total=len(given)) as stage:
        report = compare(
            sides[0], sides[1], given, inputs=about, threshold_db=threshold, progress=stage.advance
        )
    if html is not None:
        write_page(html, "compare", f"{report.a} and {report.b}", report.as_dict())
    if as_json:
        print(json.dumps(plain(report.as_dict()), indent=2))
    else:
        show(report, top)


compare_command.__doc__ = _HELP


def _is_file(name: str) -> bool:
    return name.endswith(".pte") or Path(name).is_file()


@dataclass
class _Sources:
    """Models by name, each made once."""

    stages: Stages
    weights: str | None

    def __post_init__(self) -> None:
        self._found: dict[str, Source] = {}

    def find(self, name: str) -> Source:
        if name not in self._found:
            with self.stages.stage("model"):
                from penstock.cli import console, sources

                console.hush_libraries()
                self._found[name] = sources.find(name, weights=self.weights)
        return self._found[name]


def _side(
    name: str,
    engine: str,
    data: Sequence[str],
    same: bool,
    threads: int | None,
    sources: _Sources,
) -> Side:
    if _is_file(name):
        label = f"{Path(name).name} ({engine})" if same or engine != "auto" else Path(name).name
        return ProgramSide(name, label=label, engine=engine, data=data, threads=threads)
    source = sources.find(name)
    from penstock.cli.eager_side import EagerSide

    return EagerSide(source)


def _inputs(
    programs: Sequence[ProgramSide],
    files: str | None,
    model: str | None,
    count: int,
    seed: int,
    sources: _Sources,
) -> tuple[list[list[Any]], str]:
    """The samples, and what they are in words. Raises InputError where the programs do not take
    the same inputs."""
    from penstock.cli.feeds import read_inputs
    from penstock.cli.run_file import split_names

    takes = [", ".join(map(str, program.method.inputs)) for program in programs]
    if len(set(takes)) > 1:
        raise InputError(
            f"{programs[0].label} takes {takes[0] or 'nothing'}, {programs[1].label} takes "
            f"{takes[1] or 'nothing'}: they are not programs of one model"
        )
    if files is not None:
        return [read_inputs(split_names(files), programs[0].method.inputs)], files
    if model is not None:
        from torch.utils import _pytree as pytree

        from penstock.cli.sources import batches

        found = batches(sources.find(model), count)
        leaves = [pytree.tree_leaves(arguments) for arguments in found]
        arrays = [[_plain(leaf) for leaf in sample] for sample in leaves]
        for side in programs:
            _require_fit(side, arrays, model)
        return arrays, f"{counted(len(arrays), 'sample')} of {model}"
    program = programs[0].program
    return [random_inputs(program, seed + n) for n in range(count)], counted(count, "random input")


def _require_fit(program: ProgramSide, samples: Sequence[Sequence[Any]], model: str) -> None:
    """Raises InputError where the program takes other inputs than the model's samples are."""
    specs = program.method.inputs
    for sample in samples:
        if len(sample) == len(specs) and all(map(_fits, sample, specs)):
            continue
        given = ", ".join(map(_described, sample)) or "nothing"
        raise InputError(
            f"{program.label} takes {', '.join(map(str, specs)) or 'nothing'}, the samples of "
            f"{model} are {given}: name the model that it was compiled from"
        )


def _fits(value: Any, spec: Spec) -> bool:
    if not isinstance(spec, TensorSpec) or not isinstance(value, np.ndarray):
        return True  # the program says it, with the value
    if value.dtype != spec.dtype:
        return False
    try:
        check_shape(value.shape, spec, "")
    except InputError:
        return False
    return True


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return type(value).__name__


def _plain(leaf: Any) -> Any:
    return leaf.detach().numpy() if hasattr(leaf, "detach") else leaf


def show(report: CompareReport, top: int) -> None:
    """Prints the verdict and the layers."""
    console = SafeConsole(highlight=False)
    if not console.is_terminal:
        console.width = 160  # what reads it has no edge
    verdict = "agree" if report.agree else "do not agree"
    lines = [
        f"{report.a} and {report.b} {verdict}: {report.inputs}, at least "
        f"{report.threshold_db:.0f} dB"
    ]
    for index, output in enumerate(report.outputs):
        lines.append(
            f"output {index}, {list(output.shape)}: {_ratio(output.sqnr_db)}, largest "
            f"difference {output.largest:.3g} of {output.extent:.3g}"
        )
    if report.first is not None:
        layer = report.layers[report.first]
        place = f" ({layer.source})" if layer.source else ""
        lines.append(
            f"below {report.threshold_db:.0f} dB first: {layer.name}{place}, "
            f"{_ratio(layer.sqnr_db)}, layer {report.first + 1} of {len(report.layers)}"
            + (f" ({layer.note})" if layer.note else "")
        )
    elif report.layers and report.equal:
        lines.append(f"{counted(len(report.layers), 'layer')}, all equal")
    elif report.layers:
        lines.append(f"no layer of {len(report.layers)} is below {report.threshold_db:.0f} dB")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if report.layers and not report.equal:
        print_table(console, _table(report, top), ("layer",))
    if report.left_out:
        console.print(_left_out(report), markup=False, soft_wrap=True)
    for label, names in zip((report.a, report.b), report.unmatched, strict=True):
        if names:
            kinds = Counter(name.rpartition(" ")[2] for name in names)
            text = ", ".join(f"{count} {name}" for name, count in kinds.most_common(8))
            more = f" and {len(kinds) - 8} kinds more" if len(kinds) > 8 else ""
            console.print(
                f"without a counterpart in {label}: {text}{more}", markup=False, soft_wrap=True
            )


def _left_out(report: CompareReport) -> str:
    """How many pairs were not compared, why, and the farthest apart of them."""
    farthest = sorted(report.left_out, key=lambda layer: layer.sqnr_db)[:3]
    named = ", ".join(f"{layer.name} ({_decibel(layer.sqnr_db)} dB)" for layer in farthest)
    count = len(report.left_out)
    more = f" and {count - len(farthest)} more" if count > len(farthest) else ""
    pairs = f"{count} pairs" if count > 1 else "one pair"
    return (
        f"left out: {pairs} of values that differ although what follows from them agrees, so that "
        f"they are not the same thing: {named}{more}"
    )


def _table(report: CompareReport, top: int) -> Table:
    layers = list(enumerate(report.layers, 1))
    title = "layers, in order"
    if top and len(layers) > top:
        worst = sorted(layers, key=lambda entry: -_weight(entry[1]))[:top]
        layers = sorted(worst, key=lambda entry: entry[0])
        those = "layer" if top == 1 else f"{top} layers"
        lose = "loses" if top == 1 else "lose"
        title = f"the {those} of {len(report.layers)} that {lose} most, in order"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "SQNR, dB", "loses, dB", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("layer", overflow="fold")
    table.add_column("types", no_wrap=True)
    for number, layer in layers:
        table.add_row(
            str(number),
            _decibel(layer.sqnr_db),
            "" if layer.loss_db is None else f"{layer.loss_db:.1f}",
            f"{layer.largest:.2g} of {layer.extent:.2g}",
            Text(layer.name + (f" ({layer.note})" if layer.note else "")),
            " ".join(dict.fromkeys(layer.dtypes)),
        )
    return table


def _weight(layer: Layer) -> float:
    return layer.loss_db if layer.loss_db is not None else -1e9


def _ratio(ratio: float) -> str:
    return "equal" if ratio == float("inf") else f"SQNR {ratio:.1f} dB"


def _decibel(ratio: float) -> str:
    return "equal" if ratio == float("inf") else f"{ratio:.1f}"

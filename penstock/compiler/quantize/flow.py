"""The whole of quantization: a float graph and data in, a graph of int8 operators out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from penstock.compiler.progress import Progress, Silent
from penstock.compiler.quantize.accuracy import AccuracyBudget
from penstock.compiler.quantize.budget import priced, within_budget
from penstock.compiler.quantize.calibrate import Batch, Batches, calibrate, observe_constants
from penstock.compiler.quantize.convert import convert
from penstock.compiler.quantize.correct import correct_biases
from penstock.compiler.quantize.decision import Plan
from penstock.compiler.quantize.interpreter import Snapshot
from penstock.compiler.quantize.judge import Structure
from penstock.compiler.quantize.misfits import note_misfits
from penstock.compiler.quantize.mixtures import Mixture, duplicate
from penstock.compiler.quantize.pt2e import prepare
from penstock.compiler.quantize.quantization import Quantization, QuantizationLike
from penstock.compiler.quantize.quantizer import XNNPACKQuantizer
from penstock.compiler.quantize.report import MOST_BATCHES, QuantizationReport
from penstock.errors import QuantizationError


def quantize(
    module: GraphModule,
    example_args: Sequence[Any],
    quantization: QuantizationLike = "static_per_channel",
    calibration: Iterable[Batch] | None = None,
    progress: Progress | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    held_out: Iterable[Batch] | None = None,
    accuracy: AccuracyBudget | None = None,
    output_structure: pytree.TreeSpec | None = None,
) -> tuple[GraphModule, QuantizationReport]:
    """Quantizes a graph that ``torch.export`` captured, in canonical form
    (:data:`~penstock.compiler.rewrite.pipelines.CANONICALIZE`).

    ``module`` is changed and must not be used afterwards. The result has ``quantized_decomposed``
    quantize, dequantize and (dynamic scheme) choose_qparams nodes around the operators that are
    to be computed in int8; weights are int8 constants behind one dequantize. Biases stay float32:
    whoever lowers the graph quantizes them to int32 in units of (activation scale x weight scale).

    ``calibration`` yields batches of inputs (see :class:`Batches`); without it the example inputs
    are the only batch. A purely dynamic scheme reads none. ``held_out`` yields others, for the
    report, and for ``accuracy``: the fewest operators stay in float that this budget takes
    (``output_structure`` is the pytree spec of what the model returns, for a metric).

    Raises :class:`QuantizationError` when nothing in the graph can be quantized, or a batch does
    not fit the graph's inputs, or the accuracy cannot be reached.
    """
    progress = progress or Silent()
    quantizer = XNNPACKQuantizer(quantization)
    batches = Batches(module, example_args, example_kwargs or {}, calibration)
    unseen = None if held_out is None else batches.others(held_out, "held-out").kept()
    if accuracy is not None:
        batches = batches.kept()
    with progress.stage("prepare quantization") as stage:
        module = quantizer.legalize(module)
        legal = module if accuracy is None else duplicate(module)
        prepared = _prepared(module, quantizer)
        _require_something(quantizer.plan, quantizer.quantization)
        done = quantizer.plan.quantized
        stage.note(f"{len(done)} of {len(quantizer.plan.decisions)} operators in int8")
    count: int | None = None
    if all(decision.is_dynamic for decision in done):
        observe_constants(prepared)
    else:
        count = calibrate(prepared, batches, progress, quantizer.plan)
        _require_something(quantizer.plan, quantizer.quantization)
    masked = {d.node.name: str(d.reason) for d in done if not d.quantized}
    with progress.stage("convert to int8"):
        made = _converted(prepared, quantizer, batches)

    def report(mixture: Mixture) -> QuantizationReport:
        # The caller goes on to rewrite the result, so the report keeps a graph of its own.
        return QuantizationReport.of(
            mixture.plan, mixture.quantization, mixture.floating, Snapshot.of(mixture.converted),
            batches.again(), count,
            example_inputs_alone=calibration is None and count is not None,
            held_out=unseen,
        )  # fmt: skip

    if accuracy is None:
        return made.converted, report(made)
    structure = Structure(batches.structure, output_structure)
    found = within_budget(legal, made, masked, accuracy, batches, unseen, structure, progress)
    result = report(found.mixture)
    result.budget = priced(found, report(made))
    return found.mixture.converted, result


def _converted(prepared: GraphModule, quantizer: XNNPACKQuantizer, batches: Batches) -> Mixture:
    floating = Snapshot.of(prepared)
    converted = convert(prepared)
    if any(not decision.is_dynamic for decision in quantizer.plan.quantized):
        some = list(itertools.islice(batches.again(), MOST_BATCHES))
        correct_biases(floating, converted, quantizer.plan, some)
    note_misfits(converted, quantizer.plan)
    return Mixture(frozenset(), converted, quantizer.plan, floating, quantizer.quantization)


def _prepared(module: GraphModule, quantizer: XNNPACKQuantizer) -> GraphModule:
    """What ``prepare_pt2e`` does, but for its folding of batch norms: ours has been done by then,
    and theirs also folds into a convolution whose result others read."""
    quantizer.annotate(module)
    prepared: GraphModule = prepare(
        module, {}, is_qat=False, obs_or_fq_callback=quantizer.prepare_obs_or_fq_callback
    )
    return prepared


def _require_something(plan: Plan, quantization: Quantization) -> None:
    if plan.quantized:
        return
    reasons = [f"{decision.operator}: {decision.reason}" for decision in plan.decisions]
    shown = "; ".join(dict.fromkeys(reasons)) if reasons else "the graph has no operators"
    if len(shown) > 300:
        shown = shown[:297] + "..."
    raise QuantizationError(
        f"nothing to quantize with the scheme {quantization.scheme} ({shown}); "
        "compile without quantization or choose another scheme"
    )

"""What quantization did to each operator, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import QuantizationRule, Shared
from penstock.compiler.fx.culprits import locate
from penstock.compiler.fx.origins import origin
from penstock.compiler.progress import Progress, Silent
from penstock.compiler.quantize.accuracy import BudgetOutcome
from penstock.compiler.quantize.calibrate import Batch, Batches
from penstock.compiler.quantize.cost import WIDEST, QuantizationCost, by_reason, columns
from penstock.compiler.quantize.costs import Costs, dynamic_input
from penstock.compiler.quantize.decision import Decision, Plan
from penstock.compiler.quantize.interpreter import Snapshot
from penstock.compiler.quantize.measure import Measured, measure
from penstock.compiler.quantize.quantization import DYNAMIC_SCHEMES, Quantization, Scheme
from penstock.errors import shorten
from penstock.faults import faults
from penstock.notebook import Table, render

#: The ratios are measured on no more than this many batches of calibration data.
MOST_BATCHES = 8
#: And on no more of held-out data.
MOST_HELD_OUT = 64


@dataclass
class Comparison:
    """A float graph and its quantized form, run side by side on ``batches``."""

    floating: Snapshot
    quantized: Snapshot
    batches: Batches
    #: Results of operators that a clamp after them belongs to.
    inner: frozenset[str] = frozenset()
    #: Values that histograms are kept of.
    watched: frozenset[str] = frozenset()
    _calibration: Measured | None = None

    def calibration(self, advance: Callable[[], None] = lambda: None) -> Measured:
        """Of the calibration data, measured once."""
        if self._calibration is None:
            self._calibration = self.on(self.batches, MOST_BATCHES, advance)
        return self._calibration

    def on(self, batches: Batches, limit: int, advance: Callable[[], None]) -> Measured:
        with faults("compare", locate):
            return measure(
                self.floating, self.quantized, batches, kind=batches.kind,
                inner=self.inner, watched=self.watched, limit=limit, advance=advance,
            )  # fmt: skip

    def sqnr_db(self, name: str) -> float | None:
        """Of a node that both graphs have: the ratio of the signal's power to that of the
        difference, in decibels (infinite when there is none). Elements that are infinite in float
        (masks) do not count."""
        sums = self.calibration().values.get(name)
        return None if sums is None else sums.errors(False).accumulated_db


def _form(decision: Decision) -> str:
    if decision.reason is not None:
        return "float32"
    if decision.block is not None:
        return f"int4 in blocks of {decision.block}"
    return "int8" if decision.why_8_bits is None else f"int8: {decision.why_8_bits}"


@dataclass
class Layer:
    """One operator. ``node`` is its name in the graph, ``reason`` why it stayed in float
    (``None`` when it is quantized)."""

    node: str
    operator: str
    module: str
    quantized: bool
    reason: str | None
    #: The form of its weights or values: ``int8``, ``int4 in blocks of 32`` ...; with the reason
    #: where the scheme asked for another.
    form: str
    comparison: Comparison = field(repr=False, compare=False)
    #: The line of the model that it comes from.
    source: str = ""
    #: The operator itself, where ``node`` is the clamp that belongs to it.
    head: str = ""
    rule: QuantizationRule | None = field(default=None, repr=False)
    scheme: Scheme | None = field(default=None, repr=False)
    #: Whether it only hands on what others rounded: its result has their error.
    hands_on: bool = False

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantization-noise ratio of the result in decibels, against the float model,
        with everything before it quantized too. ``None`` for results that are not floats."""
        return self.comparison.sqnr_db(self.node)

    @property
    def is_dynamic(self) -> bool:
        return self.scheme in DYNAMIC_SCHEMES


@dataclass
class QuantizationReport:
    """Every operator of the model: in int8, or in float and why. ``str()`` is a table.

    Signal-to-noise ratios are measured when one is first asked for: the float and the quantized
    graph then run on the calibration data (on the example inputs, if the data was a generator).
    """

    scheme: str
    layers: list[Layer]
    #: How many batches the ranges come from; ``None`` when nothing was calibrated.
    batches: int | None = None
    #: Whether no calibration data was given, so that the example inputs were the one batch.
    example_inputs_alone: bool = False
    #: Data that nothing was calibrated with, if some were given.
    held_out: Batches | None = field(default=None, repr=False)
    #: What an accuracy budget came to, if there was one.
    budget: BudgetOutcome | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        quantization: Quantization,
        floating: Snapshot,
        converted: Snapshot,
        batches: Batches,
        count: int | None,
        *,
        example_inputs_alone: bool,
        held_out: Batches | None = None,
    ) -> QuantizationReport:
        inner = {d.node.name for d in plan.decisions if d.result is not d.node}
        comparison = Comparison(
            floating, converted, batches, frozenset(inner), frozenset(_watched(plan, floating))
        )
        rounded = {decision.result.name for decision in plan.decisions if decision.is_static}
        before = {node.name: node for node in floating.graph.nodes}
        layers = [
            Layer(
                node=decision.result.name,
                operator=decision.operator,
                module=decision.module,
                quantized=decision.quantized,
                reason=decision.reason,
                form=_form(decision),
                comparison=comparison,
                source=origin(decision.node).source,
                head=decision.node.name,
                rule=decision.rule or _rule(decision),
                scheme=decision.scheme if decision.quantized else None,
                hands_on=_hands_on(replace(decision, node=before[decision.node.name]), rounded),
            )
            for decision in plan.decisions
        ]
        return cls(quantization.scheme, layers, count, example_inputs_alone, held_out=held_out)

    @property
    def calibration(self) -> str:
        """What the ranges come from, in words; empty when nothing was calibrated."""
        if self.batches is None:
            return ""
        if self.example_inputs_alone:
            return "calibrated on the example inputs alone: give calibration data for real use"
        return f"calibrated on {self.batches} batch{'es' if self.batches != 1 else ''}"

    @property
    def quantized(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.quantized]

    @property
    def floating(self) -> list[Layer]:
        return [layer for layer in self.layers if not layer.quantized]

    def cost(
        self, held_out: Iterable[Batch] | None = None, progress: Progress | None = None
    ) -> QuantizationCost:
        """What quantization costs each layer, worst first.

        Measured here and now, on at most 8 batches of the calibration data and 64 of ``held_out``
        (batches as calibration takes them; by default those that were given to
        :func:`penstock.lower`). ``progress`` is told how far that is, as by :func:`penstock.lower`.

        Raises :class:`~penstock.errors.QuantizationError` where ``held_out`` holds nothing,
        something that does not fit the model's inputs, or something for which a result of the
        model has no finite number.
        """
        comparison = self.layers[0].comparison
        others = self.held_out
        if held_out is not None:
            others = comparison.batches.others(held_out, "held-out")
        sizes = [_size(comparison.batches, MOST_BATCHES), _size(others, MOST_HELD_OUT)]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        with (progress or Silent()).stage("measure", total) as stage:
            seen = comparison.calibration(stage.advance)
            unseen = None
            if others is not None:
                unseen = comparison.on(others, MOST_HELD_OUT, stage.advance)
        return Costs(self.scheme, self.layers, comparison, seen, unseen).all()

    def as_dict(self) -> dict[str, Any]:
        """:meth:`cost` as plain data."""
        return self.cost().as_dict()

    def __str__(self) -> str:
        kind = "quantized" if self.scheme == "dynamic_4bit" else "in int8"
        head = f"{len(self.quantized)} of {len(self.layers)} operators {kind} ({self.scheme})"
        if self.calibration:
            head += f", {self.calibration}"
        often = [group for group in by_reason(self.floating) if len(group.layers) > 2]
        said = {layer.node for group in often for layer in group.layers}
        rows = [
            (layer.node, layer.operator, layer.module, layer.reason or layer.form)
            for layer in self.layers
            if layer.node not in said
        ]
        lines = (f"{len(g.layers)} in float ({g.operators}): {g.reason}" for g in often)
        return "\n".join([head, *columns(rows), *lines])

    def _repr_html_(self) -> str:
        """What stayed in float first."""
        rows = []
        for group in by_reason(self.floating):
            modules = ", ".join(filter(None, dict.fromkeys(layer.module for layer in group.layers)))
            rows.append((group.operators, shorten(modules, WIDEST), group.reason))
        rows += [(layer.operator, layer.module, layer.form) for layer in self.quantized]
        title = str(self).splitlines()[0]
        return render(Table(title, ("operator", "module", "form, or why float"), rows))

    def table(self) -> str:
        """``str()`` and the signal-to-noise ratio of each operator."""
        rows = [
            (layer.node, layer.module, layer.reason or layer.form, _shown(layer.sqnr_db))
            for layer in self.layers
        ]
        return "\n".join([str(self).splitlines()[0], *columns(rows)])


def _rule(decision: Decision) -> QuantizationRule | None:
    """Of an operator in float: what would hold in int8, which says which constant is a weight."""
    entry = registry.find(decision.node.target)
    return entry.quantization if entry is not None and decision.reason is not None else None


def _size(batches: Batches | None, limit: int) -> int | None:
    """How many batches are measured on; ``None`` where only reading them tells."""
    if batches is None:
        return 0
    return None if batches.count is None else min(batches.count, limit)


def _hands_on(decision: Decision, rounded: Container[str]) -> bool:
    """Whether it moves or selects values that others rounded, in their parameters."""
    moves = isinstance(decision.rule, Shared) and not decision.rule.blends
    return decision.is_static and moves and all(n.name in rounded for n in decision.inputs)


def _watched(plan: Plan, floating: Snapshot) -> Iterator[str]:
    """What is quantized: the results of static layers, the inputs of dynamic ones."""
    nodes = {node.name: node for node in floating.graph.nodes}
    for decision in plan.quantized:
        if not decision.is_dynamic:
            yield decision.result.name
        elif (source := dynamic_input(nodes[decision.node.name], decision.rule)) is not None:
            yield source


def _shown(sqnr_db: float | None) -> str:
    return "" if sqnr_db is None else f"{sqnr_db:.1f} dB"

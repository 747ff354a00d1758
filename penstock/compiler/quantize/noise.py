"""How much of the error at a model's results each rounding makes, all of them from a few
backward passes.

A rounding changes a value x by e. To first order the results change by J e, with J the derivative
of the results to x. For random v of independent standard normal elements, the expectation of
(v . J e)**2 is the squared length of J e: the noise that this rounding alone makes at the results.
And v . J e is the scalar product of e with the gradient of (v . results) at x, which one backward
pass gives for all values at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from penstock.compiler.delegate.operators.registry import Shared, Weighted
from penstock.compiler.fx.dynamic_recurrence import FLOATING
from penstock.compiler.quantize.convert import DEQUANTIZE, QUANTIZE
from penstock.compiler.quantize.decision import Decision, Plan
from penstock.compiler.quantize.interpreter import (
    Snapshot,
    SnapshotInterpreter,
    dynamic_axes,
    is_chosen,
    round_parts,
)
from penstock.compiler.quantize.values import argument

quantized = torch.ops.quantized_decomposed

#: At most so many batches are looked at, with so many random vectors in all. The square of one
#: product is a poor estimate, whose standard deviation is 1.4 times its mean; of this many the mean
#: is within 30 % (1.1 dB) mostly. So where there are few batches, each gets more vectors.
BATCHES = 4
VECTORS = 24

#: Other ways to round a value: its name -> (name of the way, scale, zero point).
Ways = Mapping[str, Sequence[tuple[str, float, int]]]


@dataclass
class Rounding:
    """One place where a value is rounded for some readers. It vanishes once all operators in
    ``needed`` are in float. ``products`` has one scalar product for each random vector; ``others``
    has the same for other ways to round it."""

    value: str
    needed: frozenset[str]
    products: list[float] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=dict)


class Noise:
    """The roundings of a quantized graph, and what the results lose by them."""

    def __init__(self, roundings: Sequence[Rounding]) -> None:
        #: By value, since the roundings of one value are the same error.
        self.groups: dict[str, list[Rounding]] = {}
        for rounding in roundings:
            if rounding.products:
                self.groups.setdefault(rounding.value, []).append(rounding)
        self._products = {id(r): np.asarray(r.products) for r in roundings if r.products}
        self.values_of: dict[str, list[str]] = {}
        for value, group in self.groups.items():
            for name in {name for rounding in group for name in rounding.needed}:
                self.values_of.setdefault(name, []).append(value)

    def of_value(self, value: str, floats: frozenset[str] | set[str]) -> float:
        """The noise (relative to the signal) of one value with these operators in float."""
        left = [
            self._products[id(rounding)]
            for rounding in self.groups[value]
            if not rounding.needed or not rounding.needed <= floats
        ]
        return float(np.square(np.sum(left, 0)).mean()) if left else 0.0

    def total(self, floats: frozenset[str] | set[str]) -> float:
        return sum(self.of_value(value, floats) for value in self.groups)

    def saved(self, more: frozenset[str], floats: set[str]) -> float:
        """How much less noise there is with ``more`` in float beside ``floats``."""
        touched = {value for name in more for value in self.values_of.get(name, ())}
        after = floats | more
        return sum(self.of_value(v, floats) - self.of_value(v, after) for v in touched)

    def order(self, operators: Sequence[str]) -> list[frozenset[str]]:
        """The operators in the order in which to put them in float: each step is the set that
        saves most noise for its size. Every operator is in one of the steps."""
        floats: set[str] = set()
        steps: list[frozenset[str]] = []
        allowed = set(operators)
        whole = self.total(floats)
        left = whole
        sets = {frozenset({name}) for name in operators}
        sets |= {r.needed for group in self.groups.values() for r in group if r.needed}
        sets = {one for one in sets if one <= allowed}
        while sets and left > 1e-4 * whole:
            gains = {one: self.saved(one, floats) / len(one) for one in sets}
            best = max(gains, key=lambda one: (gains[one], -len(one), sorted(one)))
            if gains[best] <= 0.0:
                break
            left -= gains[best] * len(best)
            floats |= best
            steps.append(best)
            sets = {one - best for one in sets} - {frozenset()}
        rest = [name for name in operators if name not in floats]
        return steps + [frozenset({name}) for name in rest]

    def better_ways(self, margin: float = 0.7) -> dict[str, str]:
        """The values that another way of rounding would serve clearly better, and which."""
        found = {}
        for value, group in self.groups.items():
            usual = self.of_value(value, frozenset())
            names = {name for rounding in group for name in rounding.others}
            least = margin * usual
            for name in sorted(names):
                rows = [rounding.others[name] for rounding in group if name in rounding.others]
                noise = float(np.square(np.sum(rows, 0)).mean())
                if len(rows) == len(group) and noise < least:
                    found[value], least = name, noise
        return found


def find_noise(
    floating: Snapshot,
    converted: Snapshot,
    plan: Plan,
    batches: Sequence[Sequence[Any]],
    ways: Ways,
    advance: Callable[[], None] = lambda: None,
) -> Noise:
    """Measures the roundings of ``converted`` on the first of ``batches``.

    An estimate, to order roundings by: of four small batches the sum is mostly within 1 dB of the
    error that is measured on them, of one within 2 dB. What a budget promises is measured.

    Raises ``RuntimeError`` where PyTorch has no derivative of an operator.
    """
    generator = torch.Generator().manual_seed(0)
    shifts = _Shifts(floating, converted, plan)
    batches = batches[:BATCHES]
    for batch in batches:
        shifts.run_flat(batch)
    probes = [_Probe(floating, converted, plan, ways, shifts) for _ in batches]
    vectors = math.ceil(VECTORS / max(1, len(batches)))
    signals: list[float] = []
    with torch.enable_grad():
        for probe, batch in zip(probes, batches, strict=True):
            results = probe.results(batch)
            powers = [float(r.detach().double().square().sum()) for r in results]
            signals = [a + b for a, b in zip(signals or [0.0] * len(powers), powers, strict=True)]
            probe.look(results, powers, generator, vectors)
            advance()
    merged: dict[str, Rounding] = {}
    for probe in probes:
        for place, rounding in probe.roundings.items():
            known = merged.setdefault(place, Rounding(rounding.value, rounding.needed))
            known.products += rounding.products
            for name, values in rounding.others.items():
                known.others.setdefault(name, []).extend(values)
    return Noise(list(merged.values()))


class _Exact(SnapshotInterpreter):
    """Runs the quantized graph without rounding anything, on float weights and biases."""

    def __init__(self, floating: Snapshot, converted: Snapshot, plan: Plan) -> None:
        super().__init__(converted)
        self.floating = floating
        self.originals = {node.name: node for node in floating.graph.nodes}
        self.plan = plan
        #: static ones, whose biases are corrected
        self.corrected = {
            d.node.name: d
            for d in plan.quantized
            if isinstance(d.rule, Weighted) and d.rule.bias is not None and not d.is_dynamic
        }

    def run_node(self, n: Node) -> Any:
        if n.op == "get_attr" and n.target not in self.floating.attributes:
            reader = next(iter(n.users))
            decision, original = self.corrected.get(reader.name), self.originals.get(reader.name)
            if decision is not None and original is not None:
                return self.bias(n, decision, original)
        if n.target in QUANTIZE and n.op == "call_function":
            return self.env[n.args[0]]  # type: ignore[index]
        if n.target in DEQUANTIZE or n.target is quantized.dequantize_per_channel_group.default:
            source = n.args[0]
            assert isinstance(source, Node)
            if source.op == "get_attr":
                return self._constant(n)
            if source.target in QUANTIZE:
                return self.value(n, source)
        if n.target in FLOATING and n.op == "call_function":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return self.call_function(FLOATING[n.target], args, kwargs)
        return super().run_node(n)

    def bias(self, n: Node, decision: Decision, original: Node) -> torch.Tensor:
        """Of a quantized operator, whose node in the float graph is ``original``."""
        assert isinstance(decision.rule, Weighted) and decision.rule.bias is not None
        known = argument(original, decision.rule.bias)
        if isinstance(known, Node):
            return self.floating.attributes[str(known.target)].detach()  # type: ignore[no-any-return]
        return torch.zeros_like(self.fetch_attr(str(n.target)))

    def _constant(self, n: Node) -> torch.Tensor:
        rounded: torch.Tensor = super().run_node(n)
        reader = next(iter(n.users))
        original = self.originals.get(reader.name)
        if original is None or n not in reader.args:
            return rounded
        weight = original.args[reader.args.index(n)]
        if not isinstance(weight, Node) or weight.op != "get_attr":
            return rounded
        exact: torch.Tensor = self.floating.attributes[str(weight.target)].detach()
        return self.weight(n, weight.name, rounded, exact)

    def weight(
        self, n: Node, name: str, rounded: torch.Tensor, exact: torch.Tensor
    ) -> torch.Tensor:
        """``n`` dequantizes the weight ``name``."""
        return exact

    def value(self, n: Node, quantize: Node) -> torch.Tensor:
        """What ``n`` makes of what ``quantize`` was given."""
        return self.env[quantize]  # type: ignore[no-any-return]


class _Shifts(_Exact):
    """Finds what the rounding of a weight adds to the mean of each output channel: the correction
    of biases takes that back."""

    def __init__(self, floating: Snapshot, converted: Snapshot, plan: Plan) -> None:
        super().__init__(floating, converted, plan)
        self._errors: dict[Node, torch.Tensor] = {}
        self._sums: dict[str, tuple[int, torch.Tensor]] = {}

    def of(self, name: str) -> torch.Tensor | float:
        """By the name of the operator, [channels]."""
        count, total = self._sums.get(name, (1, 0.0))
        return total / count

    def weight(
        self, n: Node, name: str, rounded: torch.Tensor, exact: torch.Tensor
    ) -> torch.Tensor:
        self._errors[n] = rounded - exact
        return exact

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        decision = self.corrected.get(n.name)
        if decision is not None:
            assert isinstance(decision.rule, Weighted)
            weight = argument(n, decision.rule.weight)
            if weight in self._errors:
                self._look(n, decision.rule, self._errors[weight])
        return value

    def _look(self, n: Node, rule: Weighted, error: torch.Tensor) -> None:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = list(args)
        given[rule.weight] = error
        if rule.bias is not None and len(given) > rule.bias:
            given[rule.bias] = None
        added = self.call_function(
            n.target, tuple(given), {**kwargs, "bias": None} if "bias" in kwargs else dict(kwargs)
        )
        axis = added.dim() - (error.dim() - 1)
        others = [dim for dim in range(added.dim()) if dim != axis]
        mean = added.mean(others) if others else added
        count, total = self._sums.get(n.name, (0, torch.zeros_like(mean)))
        self._sums[n.name] = count + 1, total + mean


class _Probe(_Exact):
    """Keeps what would be rounded for the derivative."""

    def __init__(
        self, floating: Snapshot, converted: Snapshot, plan: Plan, ways: Ways, shifts: _Shifts
    ) -> None:
        super().__init__(floating, converted, plan)
        self.ways, self.shifts = ways, shifts
        done = plan.quantized
        self.heads = {decision.node.name for decision in done}
        self.makers = {d.result.name: d for d in done if not d.is_dynamic}
        self.roundings: dict[str, Rounding] = {}
        self.tracked: dict[str, torch.Tensor] = {}
        #: The errors of a tracked value: as it is rounded, and in other ways.
        self.errors: dict[str, Callable[[], Mapping[str, torch.Tensor]]] = {}

    def bias(self, n: Node, decision: Decision, original: Node) -> torch.Tensor:
        exact = super().bias(n, decision, original)
        tracked = exact.view_as(exact).requires_grad_()
        assert isinstance(decision.rule, Weighted)
        weight = argument(original, decision.rule.weight)
        error = torch.zeros_like(exact) - self.shifts.of(decision.node.name)
        needed = frozenset({decision.node.name})
        self._track(n, f"weight {weight.name}", needed, tracked, lambda: {"": error})
        return tracked

    def weight(
        self, n: Node, name: str, rounded: torch.Tensor, exact: torch.Tensor
    ) -> torch.Tensor:
        tracked = exact.view_as(exact).requires_grad_()
        needed = frozenset(user.name for user in n.users) & self.heads
        self._track(n, f"weight {name}", needed, tracked, lambda: {"": rounded - exact})
        return tracked

    def value(self, n: Node, quantize: Node) -> torch.Tensor:
        value: torch.Tensor = self.env[quantize]
        source = quantize.args[0]
        assert isinstance(source, Node)
        tracked = value.view_as(value) if value.requires_grad else value.clone().requires_grad_()
        readers = frozenset(user.name for user in n.users) & self.heads
        exact = value.detach()
        if is_chosen(quantize.args[1]):
            axes = dynamic_axes(n)
            self._track(
                n, source.name, readers, tracked, lambda: {"": round_parts(exact, axes) - exact}
            )
            return tracked
        maker = self.makers.get(source.name)
        if maker is not None and isinstance(maker.rule, Shared) and not maker.rule.blends:
            return tracked  # what it moves has been rounded before
        if quantize.target is not quantized.quantize_per_tensor.default:
            return tracked
        needed = readers | ({maker.node.name} if maker is not None else frozenset())
        _, scale, zero_point, low, high = quantize.args[:5]
        usual = ("", scale, zero_point)
        ways: list[Any] = [usual, *self.ways.get(source.name, ())]

        def errors() -> dict[str, torch.Tensor]:
            return {
                name: torch.fake_quantize_per_tensor_affine(exact, s, z, low, high) - exact  # type: ignore[arg-type]
                for name, s, z in ways
            }

        self._track(n, source.name, needed, tracked, errors)
        return tracked

    def _track(
        self,
        n: Node,
        value: str,
        needed: frozenset[str],
        tracked: torch.Tensor,
        errors: Callable[[], Mapping[str, torch.Tensor]],
    ) -> None:
        self.roundings[n.name] = Rounding(value, needed)
        self.tracked[n.name], self.errors[n.name] = tracked, errors

    def results(self, batch: Sequence[Any]) -> list[torch.Tensor]:
        """The model's floats."""
        found = pytree.tree_leaves(self.run(*batch, enable_io_processing=False))
        return [
            value for value in found
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        ]  # fmt: skip

    def look(
        self, results: Sequence[torch.Tensor], powers: Sequence[float],
        generator: torch.Generator, vectors: int,
    ) -> None:  # fmt: skip
        """Backward passes from so many random directions of the results."""
        scaled = [
            (result, power**-0.5)
            for result, power in zip(results, powers, strict=True)
            if result.requires_grad and power > 0.0
        ]
        names = list(self.tracked)
        for turn in range(vectors if scaled else 0):
            seeds = [
                torch.randn(result.shape, generator=generator, dtype=result.dtype) * scale
                for result, scale in scaled
            ]
            gradients = torch.autograd.grad(
                [result for result, _ in scaled], [self.tracked[name] for name in names], seeds,
                retain_graph=turn + 1 < vectors, allow_unused=True,
            )  # fmt: skip
            for name, gradient in zip(names, gradients, strict=True):
                self._multiply(self.roundings[name], self.errors[name], gradient)
        self.tracked.clear()
        self.errors.clear()

    def _multiply(
        self, rounding: Rounding, errors: Callable[[], Mapping[str, torch.Tensor]],
        gradient: torch.Tensor | None,
    ) -> None:  # fmt: skip
        with torch.no_grad():
            for name, error in errors().items():
                product = 0.0
                if gradient is not None:
                    product = float((gradient * error.nan_to_num(0.0, 0.0, 0.0)).double().sum())
                target = rounding.others.setdefault(name, []) if name else rounding.products
                target.append(product)

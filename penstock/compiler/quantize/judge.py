"""What a quantized graph is worth: a ratio on data, or a number that the user's function gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from penstock.compiler.fx.marks import STORES
from penstock.compiler.quantize.accuracy import AccuracyBudget, HeldOutScores
from penstock.compiler.quantize.interpreter import Snapshot, SnapshotInterpreter
from penstock.compiler.quantize.measure import decibels, difference, is_float, power
from penstock.compiler.quantize.scores import Scores
from penstock.errors import QuantizationError
from penstock.faults import one_line

#: A metric may differ by this much for the order of its sums.
TOLERANCE = 1e-9


class SnapshotRunner(SnapshotInterpreter):
    """Runs a snapshot many times: what depends on constants alone is computed once."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        written = {n.args[0] for n in snapshot.graph.nodes if n.target in STORES}
        self.constant: set[Node] = set()
        for node in snapshot.graph.nodes:
            inputs = node.all_input_nodes
            depends_on_none = inputs and self.constant.issuperset(inputs)
            is_attribute = node.op == "get_attr" and node not in written
            if is_attribute or (node.op == "call_function" and depends_on_none):
                self.constant.add(node)
        self.known: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        if n in self.known:
            return self.known[n]
        value = super().run_node(n)
        if n in self.constant and n.op == "call_function":
            self.known[n] = value
        return value

    def leaves(self, values: Sequence[Any]) -> list[Any]:
        """What the graph returns, from the model's own buffers."""
        self.state.clear()
        return pytree.tree_leaves(self.run_flat(values))


@dataclass(frozen=True)
class Structure:
    """How the model is called and what it returns, as pytree specs."""

    inputs: pytree.TreeSpec
    outputs: pytree.TreeSpec | None


class Simulated:
    """A graph that is called as the model is, in PyTorch."""

    def __init__(self, snapshot: Snapshot, structure: Structure) -> None:
        self._runner = SnapshotRunner(snapshot)
        self._structure = structure

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Takes the model's inputs (tensors, or NumPy arrays for them), returns what it returns.

        Raises :class:`QuantizationError` for arguments of another structure."""
        leaves, found = pytree.tree_flatten((args, kwargs))
        if found != self._structure.inputs:
            raise QuantizationError(
                "the metric calls the model in another way than the example inputs do"
            )
        values = [_tensor(leaf) for leaf in leaves]
        results = self._runner.leaves(values)
        if self._structure.outputs is None:
            return results[0] if len(results) == 1 else tuple(results)
        return pytree.tree_unflatten(results, self._structure.outputs)


def _tensor(leaf: Any) -> Any:
    is_array = type(leaf).__module__ == "numpy" and hasattr(leaf, "dtype")
    return torch.as_tensor(leaf) if is_array else leaf


class Judge(Protocol):
    """``scores`` of a graph; a mean of at least ``target`` is asked for."""

    unit: str
    floating: float
    target: float
    data: str

    def scores(self, snapshot: Snapshot) -> Scores: ...


class RatioJudge:
    """The ratio of the worst result, in decibels, on batches of flat inputs."""

    unit = "dB"
    floating = math.inf

    def __init__(
        self, floating: Snapshot, batches: Sequence[Sequence[Any]], target: float, data: str
    ) -> None:
        self.target, self.data, self.batches = target, data, batches
        runner = SnapshotRunner(floating)
        self.expected = [runner.leaves(values) for values in batches]
        if not any(is_float(leaf) for leaf in self.expected[0]):
            raise QuantizationError(
                "the model returns no floats, so that there is no ratio to measure; give the "
                "accuracy budget a metric"
            )
        for index, leaves in enumerate(self.expected):
            if any(is_float(one) and one.numel() and not one.isfinite().any() for one in leaves):
                raise QuantizationError(
                    f"the float model gives no finite number for batch {index} of the data that "
                    "the accuracy budget is measured on; leave that batch out"
                )

    def scores(self, snapshot: Snapshot) -> Scores:
        runner = SnapshotRunner(snapshot)
        sums = [[0.0, 0.0] for _ in self.expected[0]]
        for values, expected in zip(self.batches, self.expected, strict=True):
            for total, one, other in zip(sums, expected, runner.leaves(values), strict=True):
                if is_float(one):
                    total[0] += power(one)
                    total[1] += difference(one, other)
        floats = zip(sums, self.expected[0], strict=True)
        return Scores(min(decibels(*total) for total, leaf in floats if is_float(leaf)))


class MetricJudge:
    """The mean of what the user's function gives."""

    unit = "metric"
    data = "by the metric"

    def __init__(self, floating: Snapshot, structure: Structure, budget: AccuracyBudget) -> None:
        self.budget, self._structure = budget, structure
        self.float_scores = self._call(floating, "the float model")
        self.floating = self.float_scores.mean
        room = budget.allowed_drop + TOLERANCE * max(1.0, abs(self.floating))
        self.target = self.floating - room

    def scores(self, snapshot: Snapshot) -> Scores:
        return self._call(snapshot, "a quantized model")

    def held_out(
        self, floating: Snapshot, int8: Snapshot, reached: Snapshot
    ) -> HeldOutScores | None:
        """What the budget's other metric says, if it has one."""
        if self.budget.held_out is None:
            return None
        whole = self._call(floating, "the float model", held_out=True)
        done = self._call(int8, "a quantized model", held_out=True)
        best = done if reached is int8 else self._call(reached, "a quantized model", held_out=True)
        return HeldOutScores(
            whole.mean, done.mean, best.mean, best.samples, best.uncertainty(whole)
        )

    def _call(self, snapshot: Snapshot, what: str, held_out: bool = False) -> Scores:
        metric = self.budget.held_out if held_out else self.budget.metric
        name = "the accuracy budget's " + ("held-out metric" if held_out else "metric")
        assert metric is not None
        try:
            with torch.no_grad():
                found = metric(Simulated(snapshot, self._structure))
        except QuantizationError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise QuantizationError(f"{name} failed for {what}: {one_line(error)}") from error
        try:
            scores = Scores.of(_plain(found))
        except (TypeError, ValueError, RuntimeError):
            raise QuantizationError(
                f"{name} gave a {type(found).__name__} for {what}; "
                "it must return a number, or one for each sample"
            ) from None
        if not math.isfinite(scores.mean):
            raise QuantizationError(
                f"{name} gave {scores.mean} for {what}; it must return a number"
            )
        return scores


def _plain(found: Any) -> Any:
    """Tensors, also in a list, as what NumPy reads."""
    if isinstance(found, torch.Tensor):
        return found.detach().cpu().to(torch.float64).numpy()
    if isinstance(found, (str, bytes)):
        raise TypeError("text")
    if isinstance(found, (list, tuple)):
        return [float(one) for one in found]
    if hasattr(found, "__array__"):
        return found
    return float(found)

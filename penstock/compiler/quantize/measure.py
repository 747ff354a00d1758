"""Measures what quantization did to each layer: a float graph and its quantized form run side by
side on data, once with all that is before a layer quantized too, once on the float values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from penstock.compiler.quantize.convert import DEQUANTIZE, QUANTIZE
from penstock.compiler.quantize.cost import Errors, Histogram
from penstock.compiler.quantize.interpreter import Snapshot, Stepper
from penstock.errors import QuantizationError

#: Bins of the histograms that are shown.
SHOWN_BINS = 48

quantized = torch.ops.quantized_decomposed


@dataclass
class Sums:
    """Powers of a value and of its errors, over all batches."""

    signal: float = 0.0
    own: float = 0.0
    accumulated: float = 0.0
    seen: int = 0
    beyond: int = 0
    #: The number of elements in the last batch.
    numel: int = 0
    has_range: bool = False
    spread: Spread | None = None

    def add(self, reference: torch.Tensor, own: torch.Tensor, accumulated: torch.Tensor) -> None:
        """Elements that are infinite in float (masks) do not count."""
        self.numel = reference.numel()
        self.signal += power(reference)
        self.own += difference(reference, own)
        self.accumulated += difference(reference, accumulated)

    def errors(self, quantized_layer: bool) -> Errors:
        return Errors(
            own_db=decibels(self.signal, self.own) if quantized_layer else None,
            accumulated_db=decibels(self.signal, self.accumulated),
            saturated=self.beyond / max(self.seen, 1) if self.has_range else None,
            activations=None if self.spread is None else self.spread.histogram(),
        )


@dataclass
class Spread:
    """A histogram of values whose extent is not known beforehand: its bins double in width as
    larger values come."""

    limit: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(1024, dtype=torch.float64))

    def add(self, values: torch.Tensor) -> None:
        values = values[values.isfinite()].float()
        if values.numel() == 0:
            return
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        self.low, self.high = min(self.low, low), max(self.high, high)
        extent = max(-low, high)
        if self.limit == 0.0 and extent > 0.0:
            self.limit = 2.0 ** math.ceil(math.log2(extent))
        half = self.counts.numel() // 2
        while self.limit < extent:
            merged = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[half // 2 : half // 2 + half] = merged
            self.limit *= 2.0
        edge = self.limit or 1.0
        self.counts += torch.histc(values, self.counts.numel(), -edge, edge).double()

    def histogram(self) -> Histogram | None:
        """From the least to the largest value that was seen, in at most :data:`SHOWN_BINS`."""
        if self.low > self.high:
            return None
        edge = self.limit or 1.0
        width = 2.0 * edge / self.counts.numel()
        first = max(0, min(self.counts.numel() - 1, int((self.low + edge) / width)))
        last = max(first, min(self.counts.numel() - 1, int((self.high + edge) / width)))
        each = -(-(last - first + 1) // SHOWN_BINS)
        counts = [
            int(self.counts[start : min(start + each, last + 1)].sum())
            for start in range(first, last + 1, each)
        ]
        low = first * width - edge
        return Histogram(low, low + len(counts) * each * width, tuple(counts))


def histogram_of(values: torch.Tensor) -> Histogram | None:
    spread = Spread()
    spread.add(values)
    return spread.histogram()


def decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    if not math.isfinite(noise):  # the quantized value is infinite or no number
        return -math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def power(value: torch.Tensor) -> float:
    finite = value[value.isfinite()].double()
    return float(finite.square().sum())


def difference(reference: torch.Tensor, value: torch.Tensor) -> float:
    """The power of the difference, where ``reference`` is finite."""
    finite = reference.isfinite()
    return float((reference[finite].double() - value[finite].double()).square().sum())


@dataclass(frozen=True)
class Measured:
    """By the name of a value that both graphs have; ``results`` are the model's, in order."""

    values: dict[str, Sums]
    results: tuple[Sums | None, ...]
    batches: int

    @property
    def worst_db(self) -> float | None:
        """The ratio of the model's worst result."""
        found = [decibels(s.signal, s.accumulated) for s in self.results if s is not None]
        return min(found, default=None)


def measure(
    floating: Snapshot,
    converted: Snapshot,
    batches: Iterable[Sequence[Any]],
    *,
    kind: str,
    inner: frozenset[str] = frozenset(),
    watched: frozenset[str] = frozenset(),
    limit: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Measured:
    """Runs at most ``limit`` of ``batches``, which messages call ``kind``.

    ``inner`` are values inside a quantized operator (before the clamp that it took over), which
    are no result of their own; of those ``watched`` there will be histograms.
    """
    values: dict[str, Sums] = {}
    results: list[Sums | None] = []
    count = 0
    for batch in itertools.islice(batches, limit):
        run = _SideBySide(floating, converted, inner)
        for name, reference, own, accumulated, ranges in run.values(batch):
            sums = values.setdefault(name, Sums())
            sums.add(reference, own, accumulated)
            _count_beyond(sums, reference, ranges)
            if name in watched:
                sums.spread = sums.spread or Spread()
                sums.spread.add(reference)
        pairs = run.results()
        for position, (expected, _) in enumerate(pairs):
            if is_float(expected) and expected.numel() and not expected.isfinite().any():
                raise QuantizationError(
                    f"{kind} batch {count}: the float model's result {position} has no finite "
                    "number, beside which nothing can be measured; give other data"
                )
        results = results or [Sums() if is_float(one) else None for one, _ in pairs]
        for known, (expected, found) in zip(results, pairs, strict=True):
            if known is not None:
                known.add(expected, expected, found)
        count += 1
        advance()
    return Measured(values, tuple(results), count)


def _count_beyond(
    sums: Sums, reference: torch.Tensor, ranges: Sequence[tuple[float, float]]
) -> None:
    for low, high in ranges:
        half = (high - low) / 510.0
        outside = (reference < low - half) | (reference > high + half)
        sums.beyond += int(outside.count_nonzero())
        sums.seen += reference.numel()
        sums.has_range = True


def is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


class _SideBySide:
    """Three runs of one batch: the float graph, the quantized one, and the quantized one in which
    each operator gets the float graph's values."""

    def __init__(self, floating: Snapshot, converted: Snapshot, inner: frozenset[str]) -> None:
        self.floating, self.converted, self.inner = floating, converted, inner
        self.known = {node.name for node in floating.graph.nodes}

    def values(
        self, batch: Sequence[Any]
    ) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[float, float]]]]:
        """(name, float value, own value, accumulated value, the ranges it is quantized to)."""
        self.reference = Stepper(self.floating, [batch])
        self.accumulated = Stepper(self.converted, [batch])
        own = Stepper(self.converted, [batch])
        ahead: dict[str, Any] = {}
        while (node := self.accumulated.step()) is not None:
            own.step()
            name = node.name if node.op == "placeholder" else seen_result(node)
            if name is None or name not in self.known or name in self.inner:
                continue
            while name not in ahead and (original := self.reference.step()) is not None:
                (ahead[original.name],) = self.reference.values(original)
            expected = ahead.pop(name, None)
            (found,), (alone,) = self.accumulated.values(node), own.values(node)
            results = [_joined(value) for value in (expected, found, alone)]
            if all(is_float(value) for value in results):
                source = node if node.target not in DEQUANTIZE else node.args[0].args[0]  # type: ignore[union-attr]
                assert isinstance(source, Node)
                yield name, results[0], results[2], results[1], ranges_of(source)
            if isinstance(expected, (torch.Tensor, tuple, list)):
                self._feed(own, node, expected)
        while self.reference.step() is not None:
            pass

    def results(self) -> list[tuple[Any, Any]]:
        """(float, quantized) results of the batch that was run."""
        return list(zip(_results(self.reference), _results(self.accumulated), strict=True))

    def _feed(self, own: Stepper, node: Node, expected: Any) -> None:
        """Lets what reads ``node`` see the float value, quantized if it reads integers."""
        if node.target not in DEQUANTIZE:
            own.replace(node, [expected])
            return
        quantize = node.args[0]
        assert isinstance(quantize, Node)
        rounded = expected
        if quantize.target is quantized.quantize_per_tensor.default:
            arguments: Any = quantize.args
            _, scale, zero_point, low, high = arguments[:5]
            rounded = torch.fake_quantize_per_tensor_affine(expected, scale, zero_point, low, high)
            own.replace(quantize, [rounded])
        own.replace(node, [rounded])


def _joined(value: Any) -> Any:
    """One tensor of what an operator gives, where that are several of floats."""
    if isinstance(value, (tuple, list)) and value and all(map(is_float, value)):
        return torch.cat([one.flatten() for one in value])
    return value


def _results(stepper: Stepper) -> list[Any]:
    (output,) = (node for node in stepper.snapshot.graph.nodes if node.op == "output")
    environment = stepper.interpreters[0].env
    leaves = pytree.tree_leaves(output.args[0])
    return [environment.get(leaf) if isinstance(leaf, Node) else leaf for leaf in leaves]


def ranges_of(source: Node) -> list[tuple[float, float]]:
    """What the integers that ``source`` becomes can stand for: one range for each way it is
    quantized with fixed parameters."""
    found = []
    for user in source.users:
        if user.target is quantized.quantize_per_tensor.default:
            arguments: Any = user.args
            _, scale, zero_point, low, high = arguments[:5]
            found.append(((low - zero_point) * scale, (high - zero_point) * scale))
    return found


def seen_result(node: Node) -> str | None:
    """The name of the operator whose result ``node`` hands to the readers, if it is the node that
    does so."""
    if node.op != "call_function":
        return None
    if node.target in DEQUANTIZE:
        (quantize,) = node.args[:1]
        if isinstance(quantize, Node) and quantize.target in QUANTIZE:
            source = quantize.args[0]
            first = next(iter(quantize.users)) is node
            if first and isinstance(source, Node) and _only_reader(source, quantize):
                return source.name
        return None
    if any(_only_reader(node, user) for user in node.users if user.target in QUANTIZE):
        return None
    return node.name


def _only_reader(node: Node, reader: Node) -> bool:
    return node.op == "call_function" and list(node.users) == [reader]

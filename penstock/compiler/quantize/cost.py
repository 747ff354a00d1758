"""What quantization costs, as plain data: each layer's error, size and time, worst first.

Knows no torch: pages and the command line read it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from penstock.notebook import Table, facts, render

#: What time is estimated with: one core of a processor with 8-bit dot products.
FLOAT_RATE = 60e9
INT8_RATE = 200e9
BYTES_RATE = 10e9
ESTIMATE = (
    f"estimated for one core with {FLOAT_RATE / 1e9:.0f} GFLOP/s, "
    f"{INT8_RATE / 1e9:.0f} int8 GOP/s and {BYTES_RATE / 1e9:.0f} GB/s"
)
#: ``str()`` shows so many layers.
SHOWN = 12
#: So many reasons for staying in float, and so many operators of each.
REASONS, NAMED = 4, 4
#: Longer paths of modules lose their beginning in tables.
WIDEST = 28


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of equal bins from ``low`` to ``high``."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Errors:
    """What a layer did to one set of data.

    Ratios are of the signal's power to the error's, in decibels, infinite where there is no error.
    ``own_db``: the quantized layer on the float model's values, against the float layer (``None``
    for a layer in float, and for one that only hands on what others rounded).
    ``accumulated_db``: at the same place, with all before it quantized too
    (``None`` where the result is no float). ``saturated``: the share of values beyond the range
    that the integers have (``None`` where the range follows the values).
    """

    own_db: float | None
    accumulated_db: float | None
    saturated: float | None = None
    #: Of the values that are quantized: a static layer's result, a dynamic one's input.
    activations: Histogram | None = None


@dataclass(frozen=True)
class LayerCost:
    """One operator. ``node``, ``operator``, ``module`` and ``reason`` as in the report's
    :class:`~penstock.compiler.quantize.report.Layer`; ``source`` is the line of the model."""

    node: str
    operator: str
    module: str
    source: str
    quantized: bool
    reason: str | None
    form: str
    calibration: Errors
    held_out: Errors | None
    #: Bytes of weight and bias, in float32 and as they are; in float, of all constants it reads.
    float_bytes: int
    bytes: int
    #: Multiplications in one call: with weights, in float also of attention and the like.
    macs: int
    #: Seconds of one call, by :data:`ESTIMATE` or as they were measured.
    float_seconds: float
    seconds: float
    #: What the integers of the result can stand for.
    range: tuple[float, float] | None
    weights: Histogram | None
    #: The least and the largest scale of the weight.
    weight_scales: tuple[float, float] | None

    @property
    def errors(self) -> Errors:
        """On held-out data if there are such, else on the calibration data."""
        return self.held_out or self.calibration


@dataclass(frozen=True)
class QuantizationCost:
    """Every layer of a quantized model: quantized ones first, those with the largest error of
    their own before the others. ``str()`` is a short table."""

    scheme: str
    layers: tuple[LayerCost, ...]
    #: The ratio of the worst of the model's results; ``None`` where none is a float.
    calibration_db: float | None
    held_out_db: float | None
    batches: int
    held_out_batches: int
    #: How the times were found.
    times: str = ESTIMATE
    notes: tuple[str, ...] = field(default=())

    @property
    def quantized(self) -> tuple[LayerCost, ...]:
        return tuple(layer for layer in self.layers if layer.quantized)

    @property
    def float_bytes(self) -> int:
        return sum(layer.float_bytes for layer in self.layers)

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    @property
    def float_seconds(self) -> float:
        return sum(layer.float_seconds for layer in self.layers)

    @property
    def seconds(self) -> float:
        return sum(layer.seconds for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no infinity: a ratio without error is ``null``."""
        totals = {
            "float_bytes": self.float_bytes, "bytes": self.bytes,
            "float_seconds": self.float_seconds, "seconds": self.seconds,
        }  # fmt: skip
        result: dict[str, Any] = _finite({**asdict(self), "totals": totals})
        return result

    def __str__(self) -> str:
        quantized, lines = self.quantized, self.summary()
        if quantized:
            lines += columns([HEADINGS, *(row(layer) for layer in quantized[:SHOWN])])
        if len(quantized) > SHOWN:
            lines.append(f"and {len(quantized) - SHOWN} more, with less error of their own")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        title, *lines = self.summary()
        return render(
            facts(title, ((name, text) for name, text in map(_parted, lines))),
            Table("", HEADINGS, [row(layer) for layer in self.quantized]),
        )

    def summary(self) -> list[str]:
        """What is true of the whole, in lines."""
        quantized = self.quantized
        return [
            f"{len(quantized)} of {len(self.layers)} operators quantized ({self.scheme})",
            f"  result   {self._ratios()}",
            f"  weights  {size(self.float_bytes)} in float32, {size(self.bytes)} now",
            f"  time     {duration(self.float_seconds)} in float32, {duration(self.seconds)} now"
            f" ({self.times})",
            *self._float(),
            *(f"  {note}" for note in self.notes),
        ]

    def _float(self) -> list[str]:
        groups = by_reason([layer for layer in self.layers if not layer.quantized])
        lines = [
            f"  float    {len(g.layers)} ({g.operators}): {g.reason}" for g in groups[:REASONS]
        ]
        rest = sum(len(group.layers) for group in groups[REASONS:])
        return lines + [f"  float    {rest} for other reasons"] * bool(rest)

    def _ratios(self) -> str:
        found = [f"{ratio(self.calibration_db)} on {batches(self.batches)} of calibration data"]
        if self.held_out_batches:
            found.append(f"{ratio(self.held_out_db)} on {batches(self.held_out_batches)} held out")
        return ", ".join(found)


class InFloat(Protocol):
    """A layer that stays in float."""

    @property
    def operator(self) -> str: ...

    @property
    def reason(self) -> str | None: ...


LayerT = TypeVar("LayerT", bound=InFloat)


@dataclass(frozen=True)
class Group(Generic[LayerT]):
    """Layers that stay in float for one reason."""

    reason: str
    layers: list[LayerT]

    @property
    def operators(self) -> str:
        """``add, softmax ...``: the most frequent first, of many the first few."""
        names = [name for name, _ in Counter(layer.operator for layer in self.layers).most_common()]
        return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


def by_reason(floating: Iterable[LayerT]) -> list[Group[LayerT]]:
    """What stays in float, by why, the most frequent reason first."""
    found: dict[str, list[LayerT]] = {}
    for layer in floating:
        found.setdefault(layer.reason or "", []).append(layer)
    groups = [Group(reason, layers) for reason, layers in found.items()]
    return sorted(groups, key=lambda group: -len(group.layers))


HEADINGS = ("layer", "module", "own", "held out", "accumulated", "saturated", "size", "time")


def row(layer: LayerCost) -> tuple[str, ...]:
    """The cells of a layer, as :data:`HEADINGS` names them."""
    errors = layer.errors
    return (
        layer.node,
        layer.module if len(layer.module) <= WIDEST else f"...{layer.module[3 - WIDEST :]}",
        ratio(layer.calibration.own_db),
        ratio(layer.held_out.own_db) if layer.held_out else "",
        ratio(errors.accumulated_db),
        "" if errors.saturated is None else f"{errors.saturated:.2%}",
        f"-{size(layer.float_bytes - layer.bytes)}" if layer.float_bytes > layer.bytes else "",
        f"-{duration(layer.float_seconds - layer.seconds)}",
    )


def _parted(line: str) -> tuple[str, str]:
    name, _, text = line.strip().partition(" ")
    return name, text.strip()


def badness(layer: LayerCost) -> tuple[bool, float, float]:
    """Sorts the layers: the worst comes first."""
    own, all_ = layer.errors.own_db, layer.errors.accumulated_db
    return (
        not layer.quantized,
        math.inf if own is None else own,
        math.inf if all_ is None else all_,
    )


def ratio(db: float | None) -> str:
    if db is None:
        return ""
    return f"{db:.1f} dB" if math.isfinite(db) else ("exact" if db > 0 else "-inf dB")


def size(count: int) -> str:
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.1f} us" if seconds >= 1e-7 else f"{seconds * 1e9:.0f} ns"


def batches(count: int) -> str:
    return f"{count} batch{'es' if count != 1 else ''}"


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, the cells of a column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

"""Running two sides on the same inputs and comparing what they compute: :func:`compare`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.errors import InputError
from penstock.tools.agreement import decibels
from penstock.tools.compare.match import counts, in_layout_of, matched
from penstock.tools.compare.report import CompareReport, Layer, Output
from penstock.tools.compare.taps import Side, Tap

#: A layer is only in another form, and no worse, where all that reads it is better by so many dB.
RECOVERED = 20.0
#: How such a layer's note begins.
OTHER_FORM = "other form"


@dataclass
class Sums:
    """Signal, noise and differences of two values, over the samples added so far."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    extent: float = 0.0

    def add(self, reference: np.ndarray, values: np.ndarray) -> None:
        """Two arrays of one shape."""
        with np.errstate(all="ignore"):
            a, b = reference.astype(np.float64), values.astype(np.float64)
            # Infinities (of masks) at the same places say nothing about the rest.
            difference = np.where(a == b, 0.0, a - b)
            a = np.where(np.isfinite(a), a, 0.0)
            self.signal += float(np.square(a).sum())
            self.noise += float(np.square(difference).sum())
            self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
            self.extent = max(self.extent, float(np.abs(a).max(initial=0.0)))

    @property
    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)


def compare(
    a: Side,
    b: Side,
    samples: Iterable[Sequence[object]],
    *,
    inputs: str,
    threshold_db: float,
    progress: Callable[[], None] = lambda: None,
) -> CompareReport:
    """Runs both sides on each of ``samples`` and compares outputs and intermediate values.

    ``a`` is the reference. ``inputs`` says in words what the samples are; ``progress`` is called
    after each.

    Raises InputError where there are no samples, or the sides give other outputs.
    """
    outputs: list[tuple[tuple[int, ...], Sums]] = []
    comparison: _Comparison | None = None
    count = 0
    for sample in samples:
        (a_outputs, a_taps), (b_outputs, b_taps) = a.run(sample), b.run(sample)
        _check_outputs(a_outputs, b_outputs, a.label, b.label)
        outputs = outputs or [(output.shape, Sums()) for output in a_outputs]
        for (_, sums), one, other in zip(outputs, a_outputs, b_outputs, strict=True):
            sums.add(one, other)
        if comparison is None:
            comparison = _Comparison(a_taps, b_taps)
        comparison.add(a_taps, b_taps)
        count += 1
        progress()
    if comparison is None:
        raise InputError("there are no inputs to compare on")
    layers = comparison.layers(threshold_db)
    return CompareReport(
        a=a.label,
        b=b.label,
        samples=count,
        inputs=inputs,
        threshold_db=threshold_db,
        outputs=tuple(Output(shape, s.sqnr_db, s.largest, s.extent) for shape, s in outputs),
        layers=layers,
        first=next(
            (
                index
                for index, layer in enumerate(layers)
                if layer.sqnr_db < threshold_db and not layer.note.startswith(OTHER_FORM)
            ),
            None,
        ),
        unmatched=comparison.unmatched,
    )


def _check_outputs(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], a_label: str, b_label: str
) -> None:
    if [x.shape for x in a] != [x.shape for x in b]:
        one, other = (", ".join(str(list(x.shape)) for x in side) or "none" for side in (a, b))
        raise InputError(
            f"the outputs of {a_label} have the shapes {one}, those of {b_label} {other}: they are "
            "not of one model"
        )


class _Comparison:
    """The pairs of two sides' values, by the first sample, and the sums of each."""

    def __init__(self, a: Sequence[Tap], b: Sequence[Tap]) -> None:
        self._pairs = matched(a, b)
        self._sums = [Sums() for _ in self._pairs]
        self._about = [_About.of(a[pair.a], b[pair.b]) for pair in self._pairs]
        known = {i for pair in self._pairs for i in (pair.a, *pair.within)}
        others = {pair.b for pair in self._pairs}
        self.unmatched = (
            tuple(name(tap) for i, tap in enumerate(a) if i not in known and counts(tap)),
            tuple(name(tap) for i, tap in enumerate(b) if i not in others and counts(tap)),
        )
        self._reads = self._between([tap.reads for tap in b], [pair.b for pair in self._pairs])
        if not any(self._reads):
            self._reads = self._between([tap.reads for tap in a], [pair.a for pair in self._pairs])

    @staticmethod
    def _between(reads: Sequence[Sequence[int]], positions: Sequence[int]) -> list[list[int]]:
        """For each pair the pairs that it is computed from, past values that are in none."""
        pair_at = {position: index for index, position in enumerate(positions)}
        nearest: list[set[int]] = []
        for position, sources in enumerate(reads):
            found: set[int] = set()
            for source in sources:
                if source < position:
                    found |= {pair_at[source]} if source in pair_at else nearest[source]
            nearest.append(found)
        return [sorted(nearest[position]) for position in positions]

    def add(self, a: Sequence[Tap], b: Sequence[Tap]) -> None:
        for pair, sums in zip(self._pairs, self._sums, strict=True):
            if pair.a >= len(a) or pair.b >= len(b):
                continue  # another way through the program's branches
            reference = a[pair.a].array
            values = in_layout_of(reference, b[pair.b].array)
            if values is not None:
                factor = np.float64(pair.factor)
                sums.add(reference if pair.factor == 1.0 else reference * factor, values)

    def layers(self, threshold_db: float) -> tuple[Layer, ...]:
        found = []
        readers: list[list[int]] = [[] for _ in self._pairs]
        for index, sources in enumerate(self._reads):
            for source in sources:
                readers[source].append(index)
        for index, (pair, sums, about) in enumerate(
            zip(self._pairs, self._sums, self._about, strict=True)
        ):
            own = sums.sqnr_db
            after = [self._sums[reader].sqnr_db for reader in readers[index]]
            before = [self._sums[source].sqnr_db for source in self._reads[index]]
            note = "" if pair.factor == 1.0 else f"holds {pair.factor:.4g} times the reference"
            if after and own < threshold_db and min(after) >= max(threshold_db, own + RECOVERED):
                note = f"{OTHER_FORM}: what is computed from it agrees"
            worst = min(before, default=math.inf)
            found.append(
                Layer(
                    module=about.module,
                    operator=about.operator,
                    source=about.source,
                    kinds=about.kinds,
                    dtypes=about.dtypes,
                    shape=about.shape,
                    sqnr_db=own,
                    loss_db=worst - own if math.isfinite(worst) and math.isfinite(own) else None,
                    largest=sums.largest,
                    extent=sums.extent,
                    note=note,
                )
            )
        return tuple(found)


@dataclass(frozen=True)
class _About:
    """What a pair is, without its arrays."""

    module: str
    operator: str
    source: str
    kinds: tuple[str, str]
    dtypes: tuple[str, str]
    shape: tuple[int, ...]

    @staticmethod
    def of(a: Tap, b: Tap) -> _About:
        origin = b.origin if b.origin.operator else a.origin
        return _About(
            origin.module,
            origin.operator,
            origin.source,
            (a.kind, b.kind),
            (a.dtype, b.dtype),
            a.array.shape,
        )


def name(tap: Tap) -> str:
    """``features.1 aten.add.Tensor``, or what kind of node it is."""
    return " ".join(part for part in (tap.origin.module, tap.origin.operator or tap.kind) if part)

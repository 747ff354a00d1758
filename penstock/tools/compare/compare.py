"""Running two sides on the same inputs and comparing what they compute: :func:`compare`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.errors import InputError
from penstock.tools.compare.forms import Centred
from penstock.tools.compare.integers import as_real
from penstock.tools.compare.layout import in_layout_of
from penstock.tools.compare.match import matched
from penstock.tools.compare.meaning import Compared, settle
from penstock.tools.compare.report import CompareReport, Layer, Output
from penstock.tools.compare.sums import Sums
from penstock.tools.compare.taps import Side, Tap, counts, plain_name

#: Kinds of nodes and kernels that put values together as they are.
JOINS = {"add", "subtract", "sub", "cat", "stack"}


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
        a_taps, b_taps = as_real(a_taps), as_real(b_taps)
        _check_outputs(a_outputs, b_outputs, a.label, b.label)
        outputs = outputs or [(output.shape, Sums(threshold_db)) for output in a_outputs]
        for (_, sums), one, other in zip(outputs, a_outputs, b_outputs, strict=True):
            sums.add(one, other)
        if comparison is None:
            comparison = _Comparison(a_taps, b_taps, threshold_db)
        comparison.add(a_taps, b_taps)
        count += 1
        progress()
    if comparison is None:
        raise InputError("there are no inputs to compare on")
    layers, left_out = comparison.layers(_ends(outputs, a_outputs))
    return CompareReport(
        a=a.label,
        b=b.label,
        samples=count,
        inputs=inputs,
        threshold_db=threshold_db,
        outputs=tuple(Output(shape, s.sqnr_db, s.largest, s.extent) for shape, s in outputs),
        layers=layers,
        first=next(
            (index for index, layer in enumerate(layers) if layer.sqnr_db < threshold_db), None
        ),
        unmatched=comparison.unmatched,
        left_out=left_out,
    )


def _ends(
    outputs: Sequence[tuple[tuple[int, ...], Sums]], arrays: Sequence[np.ndarray]
) -> Sums | None:
    """The worst output; None where one is of integers, which may be equal by chance."""
    if any(array.dtype.kind != "f" for array in arrays):
        return None
    return min((sums for _, sums in outputs), key=lambda sums: sums.sqnr_db, default=None)


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

    def __init__(self, a: Sequence[Tap], b: Sequence[Tap], threshold_db: float) -> None:
        self._threshold_db = threshold_db
        self._pairs = matched(a, b)
        self._plain = [Sums(threshold_db) for _ in self._pairs]
        self._formed = [Sums(threshold_db) if pair.form else None for pair in self._pairs]
        self._about = [_About.of(a[pair.a], b[pair.b]) for pair in self._pairs]
        known = {i for pair in self._pairs for i in (pair.a, *pair.within)}
        others = {j for pair in self._pairs for j in (pair.b, *pair.within_b)}
        self.unmatched = (
            tuple(name(tap) for i, tap in enumerate(a) if i not in known and counts(tap)),
            tuple(name(tap) for i, tap in enumerate(b) if i not in others and counts(tap)),
        )
        self._steps = [tap.reads for tap in b], [pair.b for pair in self._pairs]
        if not any(self._steps[0]):
            self._steps = [tap.reads for tap in a], [pair.a for pair in self._pairs]

    def add(self, a: Sequence[Tap], b: Sequence[Tap]) -> None:
        for pair, plain, formed in zip(self._pairs, self._plain, self._formed, strict=True):
            if pair.a >= len(a) or pair.b >= len(b):
                continue  # another way through the program's branches
            reference = a[pair.a].array
            values = in_layout_of(reference, b[pair.b].array)
            if values is not None:
                plain.add(reference, values)
                if formed is not None and pair.form is not None:
                    formed.add(*pair.form.of(reference, values))

    def layers(self, ends: Sums | None) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
        """What was compared, and what was left out; ``ends`` is the worst output."""
        reads = _between(*self._steps)
        compared = [
            Compared(
                plain=plain,
                formed=formed,
                certain=isinstance(pair.form, Centred),
                reads=sources,
                size=math.prod(about.shape),
                discrete=about.discrete,
                joins=about.joins,
                alike=about.kinds[0] == about.kinds[1],
            )
            for pair, plain, formed, sources, about in zip(
                self._pairs, self._plain, self._formed, reads, self._about, strict=True
            )
        ]
        meanings = settle(compared, ends, self._threshold_db)
        kept = [index for index, meaning in enumerate(meanings) if not meaning.left_out]
        steps, positions = self._steps
        sources = _between(steps, [positions[index] for index in kept])
        layers = []
        for index, read in zip(kept, sources, strict=True):
            pair, about, meaning = self._pairs[index], self._about[index], meanings[index]
            worst = min((meanings[kept[n]].sums.sqnr_db for n in read), default=math.inf)
            own = meaning.sums.sqnr_db
            loss = worst - own if math.isfinite(worst) and math.isfinite(own) else None
            note = pair.form.note(about.shape) if pair.form and meaning.formed else ""
            if pair.form and meaning.either:
                note = f"or {pair.form.note(about.shape)}, and what follows is wrong"
            layers.append(about.layer(meaning.sums, loss, note))
        left_out = [
            about.layer(meaning.sums, None, f"what follows from it agrees, {_words(meaning.after)}")
            for about, meaning in zip(self._about, meanings, strict=True)
            if meaning.left_out
        ]
        return tuple(layers), tuple(left_out)


def _words(ratio: float) -> str:
    return "to the bit" if ratio == math.inf else f"{ratio:.0f} dB"


def _between(reads: Sequence[Sequence[int]], positions: Sequence[int]) -> list[tuple[int, ...]]:
    """For each of the values at ``positions`` which of them it is computed from, past others."""
    number_at = {position: index for index, position in enumerate(positions)}
    nearest: list[set[int]] = []
    for position, sources in enumerate(reads):
        found: set[int] = set()
        for source in sources:
            if source < position:
                found |= {number_at[source]} if source in number_at else nearest[source]
        nearest.append(found)
    return [tuple(sorted(nearest[position])) for position in positions]


@dataclass(frozen=True)
class _About:
    """What a pair is, without its arrays."""

    module: str
    operator: str
    source: str
    kinds: tuple[str, str]
    dtypes: tuple[str, str]
    shape: tuple[int, ...]
    discrete: bool

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
            a.array.dtype.kind != "f",
        )

    @property
    def joins(self) -> bool:
        """Whether it is a sum or a concatenation."""
        kind = plain_name(self.kinds[1])
        return kind in JOINS or kind.startswith("concatenate")

    def layer(self, sums: Sums, loss: float | None, note: str) -> Layer:
        """The pair in the report."""
        return Layer(
            module=self.module,
            operator=self.operator,
            source=self.source,
            kinds=self.kinds,
            dtypes=self.dtypes,
            shape=self.shape,
            sqnr_db=sums.sqnr_db,
            loss_db=loss,
            largest=sums.largest,
            extent=sums.extent,
            note=note,
        )


def name(tap: Tap) -> str:
    """``features.1 aten.add.Tensor``, or what kind of node it is."""
    return " ".join(part for part in (tap.origin.module, tap.origin.operator or tap.kind) if part)

"""Quantized values outside of delegates: :func:`as_real`.

There a quantized operator is several instructions: a product in floating point, the conversion that
rounds it (and clamps it, which may be all that is left of a ReLU), and one back for each reader.
Inside of delegates it is one node, whose value is made of integers. This brings the former into the
latter's form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from penstock.tools.compare.taps import ROUNDS, Tap

#: How the names of the kernels begin that convert to integers and back.
_TO_INTEGERS = "quantized_decomposed::quantize_"
_FROM_INTEGERS = "quantized_decomposed::dequantize_"


def as_real(taps: Sequence[Tap]) -> list[Tap]:
    """``taps`` with the real numbers that integers stand for, without the conversions.

    Integers have the numbers that their conversion back gives; a value that nothing reads but its
    conversion to integers has theirs. Conversions whose parameters are computed stay.
    """
    found = list(taps)
    stands_for: dict[int, int] = {}  # a conversion that is left out -> the value in its place

    def place(position: int) -> int:
        while position in stands_for:
            position = stands_for[position]
        return position

    for position, tap in enumerate(taps):
        if tap.kind.startswith(_FROM_INTEGERS) and len(tap.reads) == 1:
            (source,) = tap.reads
            integers = taps[source]
            if integers.array.shape != tap.array.shape:
                continue
            if integers.array.dtype.kind in "iu":
                dtype = f"q{integers.dtype}"
                found[source] = dataclasses.replace(integers, array=tap.array, dtype=dtype)
            elif integers.kind != ROUNDS:
                continue
            stands_for[position] = source
    readers: list[set[int]] = [set() for _ in taps]
    for position, tap in enumerate(taps):
        for source in tap.reads:
            readers[place(source)].add(position)
    for position, tap in enumerate(taps):
        if tap.kind.startswith(_TO_INTEGERS) and len(tap.reads) == 1:
            source, rounded = place(tap.reads[0]), found[position]
            real = rounded.array.dtype.kind == "f"
            if real and readers[source] == {position}:
                value = found[source]
                found[source] = dataclasses.replace(value, array=rounded.array, dtype=rounded.dtype)
                stands_for[position] = source
    kept = [position for position in range(len(taps)) if position not in stands_for]
    number = {position: n for n, position in enumerate(kept)}
    return [
        dataclasses.replace(
            found[position],
            reads=tuple(dict.fromkeys(number[place(source)] for source in taps[position].reads)),
        )
        for position in kept
    ]

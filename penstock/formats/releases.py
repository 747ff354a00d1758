"""Which release of ExecuTorch has what a file may need: node kinds, data types, kernels, features.

The facts are in ``releases.txt``, which ``python -m docs.executorch_history`` makes from the public
repository's history.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Literal

TABLE = "releases.txt"
What = Literal["node", "datatype", "kernel", "feature"]


class Feature(Enum):
    """A part of the format that came after the first release; the value says what it is."""

    CONSTANT_SEGMENT = "constants in a segment of the file"
    INITIAL_STATE = "initial states of buffers"
    NAMED_DATA = "named data"
    EXTERNAL_DATA = "tensors in a data file"
    DEVICE_MEMORY = "planned memory on a device"
    PAYLOAD_HEADER = "XNNPACK constants behind the graph"
    PAYLOAD_NAMED_CONSTANTS = "XNNPACK constants by name"
    PAYLOAD_SCALES_APART = "XNNPACK scales among the constants"
    PAYLOAD_WIDE_TOKENS = "XNNPACK tokens of several dimensions, quantized at run time"
    PAYLOAD_SPARSE_POOLING = "XNNPACK pooling with strides beyond its window"
    #: Operands that no product packs. Earlier releases give their memory back before they are read
    #: unless the whole program is in memory (a data loader over a buffer).
    PAYLOAD_OPERANDS_BY_NAME = "XNNPACK operands that are constants"


@dataclass(frozen=True)
class Span:
    """The releases that have something: from ``first`` on, up to ``last`` if later ones lack it."""

    first: str
    last: str | None = None


@dataclass(frozen=True)
class Releases:
    """The table. ``all`` are the releases that it knows, oldest first."""

    all: tuple[str, ...]
    spans: Mapping[tuple[str, str], Span]

    def having(self, what: What, name: str) -> Span | None:
        """Where the thing of that name is; None for what no release has (a custom kernel say)."""
        return self.spans.get((what, name))

    def common(self, spans: Iterable[Span]) -> tuple[str, ...]:
        """The releases that have all of it, oldest first."""
        order = {release: number for number, release in enumerate(self.all)}
        low, high = 0, len(self.all) - 1
        for span in spans:
            low = max(low, order[span.first])
            high = min(high, order[span.last] if span.last is not None else high)
        return self.all[low : high + 1]


@cache
def releases() -> Releases:
    """The table of this package."""
    data = pkgutil.get_data(__package__, TABLE)
    assert data is not None
    known: tuple[str, ...] = ()
    spans = {}
    for line in data.decode().splitlines():
        what, *words = line.split()
        if what == "releases":
            known = tuple(words)
        elif what != "#":
            name, *ends = words
            spans[what, name] = Span(*ends)
    return Releases(known, spans)

"""How much memory a run of a graph takes, so that a damaged file cannot exhaust the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import Conv2dAttributes, Pool2dAttributes, ResizeAttributes
from penstock.runtime.blocks import machine_bytes

_POINTER = 8
#: Where the system does not tell its memory.
_UNKNOWN = 1 << 40


def peak_memory(nodes: Sequence[Node], shapes: Mapping[int, Shape], bits: Mapping[int, int]) -> int:
    """Bytes of intermediate values alive at once, at most, and of XNNPACK's tables.

    ``bits`` has the bits of an element of each value that is not a constant.
    """
    last_use = {i: index for index, node in enumerate(nodes) for i in node.inputs}
    alive = peak = tables = 0
    for index, node in enumerate(nodes):
        alive += sum(_size(shapes[i], bits[i]) for i in node.outputs)
        tables += _indirection(node, shapes)
        peak = max(peak, alive)
        for i in {*node.inputs, *node.outputs}:
            if last_use.get(i, index) == index and i in bits:
                alive -= _size(shapes[i], bits[i])
    return peak + tables


def _size(shape: Shape, bits: int) -> int:
    return prod(shape) * bits // 8


def _indirection(node: Node, shapes: Mapping[int, Shape]) -> int:
    """Convolutions and pools keep a pointer for each tap of each output pixel."""
    a = node.attributes
    if isinstance(a, (Conv2dAttributes, Pool2dAttributes)):
        taps = prod(a.kernel)
        return 0 if taps == 1 else prod(shapes[node.outputs[0]][1:3]) * taps * _POINTER
    if isinstance(a, ResizeAttributes):
        return a.height * a.width * 5 * _POINTER  # four corners and two weights
    return 0


def available_memory() -> int:
    """Bytes that this process can still get, as far as the system tells."""
    limits = (machine_bytes(), _meminfo(), _control_group())
    return min((n for n in limits if n is not None), default=_UNKNOWN)


def _meminfo() -> int | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group() -> int | None:
    """What is left to the container that we may be in."""
    limit = _lines("/sys/fs/cgroup/memory.max")
    used = _lines("/sys/fs/cgroup/memory.current")
    if not limit or not used or not limit[0].strip().isdigit():
        return None
    return max(0, int(limit[0]) - int(used[0]))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

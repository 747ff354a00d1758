"""Plans: what one call into C runs, kernels of ours and runtimes of XNNPACK's in a row.

What runs (a :class:`Link`) is bound to memory by pointers in its C structures, so a plan knows
where each address has to be written; values inside the plan are bound once.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from ctypes import POINTER, Structure, c_int, c_size_t, c_void_p
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from penstock.runtime import blocks
from penstock.runtime.blocks import address
from penstock.runtime.engines import arena
from penstock.runtime.engines.native.library import Library, Prototype
from penstock.runtime.engines.threads import Threads


class CPool(Structure):
    """``struct pk_pool``."""

    _fields_ = [("handle", c_void_p), ("parallelize", c_void_p), ("threads", c_size_t)]


class CStep(Structure):
    """``struct pk_step``."""

    _fields_ = [("run", c_void_p), ("task", c_void_p), ("status", c_void_p)]


class CPatch(Structure):
    """``struct pk_patch``."""

    _fields_ = [("field", c_void_p), ("port", c_size_t)]


class CPlan(Structure):
    """``struct pk_plan``."""

    _fields_ = [
        ("steps", POINTER(CStep)),
        ("step_count", c_size_t),
        ("patches", POINTER(CPatch)),
        ("patch_count", c_size_t),
        ("pool", CPool),
    ]


class CXnnpackTask(Structure):
    """``struct pk_xnnpack_task``."""

    _fields_ = [
        ("setup", c_void_p),
        ("invoke", c_void_p),
        ("runtime", c_void_p),
        ("count", c_size_t),
        ("externals", c_void_p),
        ("placed", c_void_p),
        ("status", c_int),
    ]


PROTOTYPES: Mapping[str, Prototype] = {
    "pk_plan_run": (c_int, (POINTER(CPlan), POINTER(c_size_t))),
    "pk_xnnpack_run": (None, (c_void_p, c_void_p)),
}


class Field(NamedTuple):
    """A pointer that holds the address of a value while step number ``step`` of a link runs."""

    value: Hashable
    place: int
    step: int


class Over(NamedTuple):
    """Step number ``step`` of a link may write ``output`` over ``input``. ``same``: they have the
    same bytes, so that both can be read from one place later too."""

    output: Hashable
    input: Hashable
    step: int
    same: bool = False


@dataclass
class Link:
    """Steps in a row, as (function, task, status) addresses. ``fields`` are the pointers that hold
    the address of a value; ``sizes`` are the bytes, with room for reads past the end, of the values
    that only these steps see. ``keep`` has what the addresses point into. ``overs``: what may lie
    in one place."""

    steps: list[tuple[int, int, int]] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    sizes: dict[Hashable, int] = field(default_factory=dict)
    keep: list[object] = field(default_factory=list)
    overs: list[Over] = field(default_factory=list)


class Plan:
    """Links bound to memory: all values but the ports lie in one block, planned by live ranges.

    Args:
        links: what to run, in order.
        ports: the values whose addresses :meth:`run` is given.
        sizes: the bytes of values between links, with room for reads past the end.
    """

    def __init__(
        self,
        library: Library,
        threads: Threads,
        links: Sequence[Link],
        ports: Sequence[Hashable],
        sizes: Mapping[Hashable, int],
    ) -> None:
        sizes = {**sizes, **{v: size for link in links for v, size in link.sizes.items()}}
        steps = [step for link in links for step in link.steps]
        fields: list[tuple[Field, int]] = []
        overs: list[Over] = []
        start = 0
        for link in links:
            fields += [(f, start + f.step) for f in link.fields]
            overs += [o._replace(step=start + o.step) for o in link.overs]
            start += len(link.steps)
        number = {value: port for port, value in enumerate(ports)}
        places, block = _allocated(fields, number, sizes, overs)
        patches = []
        for f, _ in fields:
            if f.value in number:
                patches.append((f.place, number[f.value]))
            else:
                c_void_p.from_address(f.place).value = places[f.value]
        self._steps = (CStep * len(steps))(*(CStep(*step) for step in steps))
        self._patches = (CPatch * len(patches))(*(CPatch(*patch) for patch in patches))
        self._keep = (links, block, threads, library)
        self._plan = CPlan(self._steps, len(steps), self._patches, len(patches), pool_of(threads))
        self._ports: Any = (c_size_t * max(len(ports), 1))()
        self._count = len(ports)
        self._run = library.functions.pk_plan_run
        self._plan_address = ctypes.byref(self._plan)

    def run(self, addresses: Sequence[int]) -> int:
        """Run on values at ``addresses``, in the order of ``ports``. Returns 0, or the code of the
        step that failed. Not to be called from two threads at once."""
        self._ports[: self._count] = addresses
        status: int = self._run(self._plan_address, self._ports)
        return status

    def fixed(self, arrays: Sequence[np.ndarray]) -> Callable[[], int]:
        """A function that is :meth:`run` on these arrays, which it keeps."""
        ports = (c_size_t * max(len(arrays), 1))(*map(address, arrays))

        def call(kept: object = arrays) -> int:
            status: int = self._run(self._plan_address, ports)
            return status

        return call

    def run_step(self, index: int, addresses: Sequence[int]) -> None:
        """Run one step alone, to measure it."""
        step = CPlan(
            ctypes.cast(ctypes.byref(self._steps, index * ctypes.sizeof(CStep)), POINTER(CStep)),
            1, self._patches, self._plan.patch_count, self._plan.pool,
        )  # fmt: skip
        self._ports[: self._count] = addresses
        self._run(ctypes.byref(step), self._ports)


def _allocated(
    fields: Sequence[tuple[Field, int]],
    outside: Container[Hashable],
    sizes: Mapping[Hashable, int],
    overs: Sequence[Over],
) -> tuple[dict[Hashable, int], object]:
    """An address for each value but those ``outside``, by the steps that have fields for it, and
    the block that they lie in."""
    spans: dict[Hashable, arena.Live] = {}
    for f, step in fields:
        if f.value not in outside:
            first = spans[f.value].first if f.value in spans else step
            spans[f.value] = arena.Live(sizes[f.value], first, step)
    # An output takes the place of an input that nothing reads again, or whose bytes it has.
    places: dict[Hashable, Hashable] = {value: value for value in spans}
    for over in overs:
        before, after = spans.get(places.get(over.input)), spans.get(over.output)
        if (
            before
            and after
            and (over.same or before.last == over.step)
            and over.step == after.first
            and before.size >= after.size
        ):
            place = places[over.output] = places[over.input]
            last = max(before.last, after.last)
            spans[place] = arena.Live(before.size, before.first, last)
            del spans[over.output]
    keys = list(spans)
    offsets, total = arena.plan(dict(enumerate(spans.values())))
    block = blocks.large(total)
    starts = {keys[i]: address(block) + offset for i, offset in offsets.items()}
    return {value: starts[place] for value, place in places.items()}, block


def pool_of(threads: Threads) -> CPool:
    """``threads`` as kernels take them."""
    pool = threads.pool()
    if pool is None:
        return CPool(None, None, 1)
    return CPool(pool.handle, pool.parallelize_1d, threads.count)


@functools.cache
def address_of(functions: ctypes.CDLL, name: str) -> int:
    """The address of a function of a shared library."""
    return ctypes.cast(getattr(functions, name), c_void_p).value or 0


def field_address(structure: Structure, name: str) -> int:
    """Where the field ``name`` of ``structure`` lies."""
    offset: int = getattr(type(structure), name).offset
    return ctypes.addressof(structure) + offset

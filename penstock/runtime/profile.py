"""Where the time of a method goes: by instruction, and by node inside a delegate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from penstock.formats.program import DelegateCall
from penstock.formats.sources import UNKNOWN, MethodSources, Origin
from penstock.notebook import Table, render
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.engines.protocol import MEASURING
from penstock.runtime.kernels.registry import Kernel

if TYPE_CHECKING:
    from penstock.runtime.engines.protocol import NodeTime
    from penstock.runtime.instructions import Bound
    from penstock.runtime.steps import Step

_Clock = Callable[[], int]


@dataclass(frozen=True)
class NodeProfile:
    """What a node of a delegate cost. ``position`` is its place in the payload and ``kind`` the
    name of its kind; -1 and the engine's own name for what belongs to no node. ``operators`` are
    the names that ``engine`` has for what it ran; ``seconds`` is the time of all ``calls``."""

    position: int
    kind: str
    operators: tuple[str, ...]
    calls: int
    seconds: float
    origin: Origin = UNKNOWN
    engine: str = ""


@dataclass(frozen=True)
class InstructionProfile:
    """What an instruction cost: a kernel, a delegate, a move or a jump. Nodes of a delegate are in
    the payload's order; their times together are less than the delegate's, which copies inputs and
    outputs too. Of the last call: ``bytes`` of the tensors that a kernel reads or writes,
    ``shapes`` of a delegate's inputs as they lie in memory."""

    position: int
    label: str
    calls: int
    seconds: float
    nodes: tuple[NodeProfile, ...] = ()
    origin: Origin = UNKNOWN
    bytes: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Profile:
    """What the calls of a method cost since it was loaded, or since the last reset. ``seconds`` is
    the time in instructions; a call also checks inputs and makes outputs. ``measuring``
    seconds went into the profile itself, beside them."""

    method: str
    calls: int
    instructions: tuple[InstructionProfile, ...]
    measuring: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(instruction.seconds for instruction in self.instructions)

    def __str__(self) -> str:
        """A table of what cost most, 20 rows of it."""
        rows = self._rows()
        total, calls = self.seconds or 1.0, max(self.calls, 1)
        lines = [
            f"{1e3 * seconds / calls:10.3f} ms {seconds / total:7.1%}  {what}  {module}".rstrip()
            for seconds, what, module in rows[:20]
        ]
        rest = len(rows) - 20
        return "\n".join([self._head(), *lines, *([f"and {rest} more"] if rest > 0 else [])])

    def _repr_html_(self) -> str:
        total, calls = self.seconds or 1.0, max(self.calls, 1)
        rows = [
            (f"{1e3 * seconds / calls:.3f}", f"{seconds / total:.1%}", what, module)
            for seconds, what, module in self._rows()
        ]
        return render(Table(self._head(), ("ms", "share", "what", "module"), rows))

    def _head(self) -> str:
        each = 1e3 * self.seconds / max(self.calls, 1)
        return (
            f"{self.method}: {self.calls} call{'s' if self.calls != 1 else ''}, {each:.3f} ms each"
        )

    def _rows(self) -> list[tuple[float, str, str]]:
        """Seconds, what it is and the module it comes from, the costliest first; of a delegate what
        its nodes leave."""
        rows: list[tuple[float, str, str]] = []
        for one in self.instructions:
            inside = sum(node.seconds for node in one.nodes)
            rows.append((one.seconds - inside, one.label, ""))
            rows += [(n.seconds, n.kind, n.origin.module) for n in one.nodes]
        return sorted(rows, key=lambda row: -row[0])


@dataclass
class _Node:
    calls: int = 0
    microseconds: float = 0
    operators: dict[str, None] = field(default_factory=dict)
    engine: str = ""


class Recorder:
    """Counts and times of a method's instructions while it runs."""

    def __init__(self, bound: Sequence[Bound], clock: _Clock = time.perf_counter_ns) -> None:
        self._bound = bound
        self._clock = clock
        self.calls = 0
        self.reset()

    def reset(self) -> None:
        """Forgets all calls."""
        self.calls = 0
        self._measuring = 0
        count = len(self._bound)
        self._counts, self._nanoseconds = [0] * count, [0] * count
        self._bytes = [0] * count
        self._shapes: list[tuple[tuple[int, ...], ...]] = [()] * count
        self._nodes: list[dict[tuple[int, str], _Node]] = [{} for _ in self._bound]

    def timed(self, step: Step, position: int, values: Sequence[object] = ()) -> Step:
        """``step``, which is instruction ``position`` and works on ``values``, and a record of what
        it costs."""
        bound = self._bound[position]
        target = bound.target
        delegate = target if isinstance(target, BoundDelegate) else None
        tensors = {*bound.args, *bound.outs} if isinstance(target, Kernel) else set()

        def run() -> int | None:
            start = self._clock()
            following = step()
            end = self._clock()
            self._nanoseconds[position] += end - start
            self._counts[position] += 1
            if delegate is not None:
                self._shapes[position] = delegate.input_shapes
                self._add(position, delegate.executable.profile())
            elif tensors and values:
                arrays = (values[i] for i in tensors)
                self._bytes[position] = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
            self._measuring += self._clock() - end
            return following

        return run

    def _add(self, position: int, times: Sequence[NodeTime]) -> None:
        nodes = self._nodes[position]
        seen: set[tuple[int, str]] = set()
        for name, microseconds, place, engine in times:
            if name == MEASURING:
                spent = round(1e3 * microseconds)
                self._measuring += spent
                self._nanoseconds[position] -= spent
                continue
            key = (-1, name) if place is None else (place, "")
            node = nodes.setdefault(key, _Node())
            node.microseconds += microseconds
            node.operators[name] = None
            node.engine = engine
            if key not in seen:
                seen.add(key)
                node.calls += 1

    def profile(self, method: str, sources: MethodSources) -> Profile:
        """What was recorded, with the origins that ``sources`` gives."""
        found = []
        for position, one in enumerate(self._bound):
            target, instruction = one.target, one.instruction
            nodes: list[NodeProfile] = []
            if isinstance(target, BoundDelegate) and isinstance(instruction, DelegateCall):
                for (place, name), node in sorted(self._nodes[position].items()):
                    kind, handle = target.nodes[place] if place >= 0 else (name, 0)
                    nodes.append(
                        NodeProfile(
                            place,
                            kind,
                            tuple(node.operators),
                            node.calls,
                            node.microseconds / 1e6,
                            sources.of_node(instruction.delegate, handle),
                            node.engine,
                        )  # fmt: skip
                    )
            found.append(
                InstructionProfile(
                    position,
                    one.label,
                    self._counts[position],
                    self._nanoseconds[position] / 1e9,
                    tuple(nodes),
                    sources.of_instruction(position),
                    self._bytes[position],
                    self._shapes[position],
                )  # fmt: skip
            )
        return Profile(method, self.calls, tuple(found), self._measuring / 1e9)

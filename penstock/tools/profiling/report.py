"""What a profile says: the time of each piece of work beside what the machine can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import quantiles
from typing import Any

from penstock.formats.payload_reader import read_payload
from penstock.formats.program import DelegateCall, Method
from penstock.formats.sources import UNKNOWN, Origin
from penstock.graph.shapes import infer
from penstock.notebook import Table, render
from penstock.runtime.profile import InstructionProfile, NodeProfile
from penstock.runtime.program import LoadedProgram
from penstock.text import counted
from penstock.tools.profiling.fusion import carriers
from penstock.tools.profiling.machine import Peaks
from penstock.tools.profiling.measure import Call
from penstock.tools.profiling.work import Work, work_of

#: Labels of what is no node's and no kernel's.
BETWEEN = "between the nodes"
AROUND = "around the instructions"


@dataclass(frozen=True)
class Row:
    """A piece of work: a node of a delegate (its position in the payload), or an instruction
    (``node`` is -1), or what is left of either (``label``).

    ``calls`` and ``seconds`` are of one call of the method. ``work`` is None where it is not known
    (a kernel's ``bytes`` are), ``least_seconds`` what the machine takes for it at least.
    ``operators`` are the names that ``engine`` has for what ran; ``with_nodes`` the positions of
    nodes that ran in the same operator, whose work is counted here.
    """

    instruction: int
    node: int
    label: str
    calls: float
    seconds: float
    share: float
    origin: Origin = UNKNOWN
    engine: str = ""
    operators: tuple[str, ...] = ()
    work: Work | None = None
    bytes: int = 0
    least_seconds: float | None = None
    with_nodes: tuple[int, ...] = ()

    @property
    def operator(self) -> str:
        """The operator of the user's model, or what ran where that is not known."""
        return self.origin.operator or self.label


@dataclass(frozen=True)
class Unseen:
    """A node of a delegate that has no time of its own: it ran with the node ``ran_with``; None
    where it is no work, as memory under another shape."""

    instruction: int
    node: int
    label: str
    ran_with: int | None


@dataclass(frozen=True)
class ProfileReport:
    """Where the time of a call goes. The time of a row is the first decile over ``calls`` calls,
    which what else the machine does disturbs least; ``seconds`` is the sum of the rows,
    ``quartiles`` those of whole calls as they were. ``ordinary`` is the first decile of calls in
    which nothing was measured, where that is known: of small nodes much is the measuring's. The
    rows are in the program's order."""

    path: str
    method: str
    engine: str
    threads: int
    calls: int
    seconds: float
    quartiles: tuple[float, float, float]
    peaks: Peaks
    rows: tuple[Row, ...]
    unseen: tuple[Unseen, ...]
    ordinary: float | None = None

    @property
    def mind(self) -> str | None:
        """A line about what measuring added, where that is much."""
        if not self.ordinary or self.seconds < 1.25 * self.ordinary:
            return None
        return (
            f"measuring takes time itself: the parts add up to {self.seconds / self.ordinary:.3g} "
            "times an ordinary call, and of the times of small nodes much is the clock"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        found = asdict(self)
        for row, plain in zip(self.rows, found["rows"], strict=True):
            plain["operator"] = row.operator
        found["mind"] = self.mind
        return found

    def _repr_html_(self) -> str:
        """What took longest."""
        rows = [
            (
                f"{1e3 * row.seconds:.3f}", f"{row.share:.1%}", _part_of_roof(row), row.label,
                row.origin.module, row.engine,
            )
            for row in sorted(self.rows, key=lambda row: -row.seconds)
        ]  # fmt: skip
        title = f"{self.path}, {self.method}: {1e3 * self.seconds:.3f} ms a call"
        calls = counted(self.calls, "call")
        note = f"first deciles over {calls}, threads: {self.threads}, engine: {self.engine}"
        note += f"; {self.mind}" if self.mind else ""
        headings = ("ms", "share", "of what the machine can do", "what", "module", "engine")
        return render(Table(title, headings, rows, note))


def _part_of_roof(row: Row) -> str:
    if row.least_seconds is None or not row.seconds:
        return ""
    return f"{min(row.least_seconds / row.seconds, 1.0):.0%}"


def report(
    program: LoadedProgram,
    path: str,
    engine: str,
    threads: int,
    calls: Sequence[Call],
    peaks: Peaks,
    ordinary: float | None = None,
) -> ProfileReport:
    """What ``calls`` of a method of ``program`` say. ``ordinary`` are the seconds of a call in
    which nothing was measured."""
    name = calls[0].profile.method
    method = program.program.method(name)
    assert method is not None
    maker = _Rows(program, method, peaks)
    for position in range(len(method.instructions)):
        maker.add([call.profile.instructions[position] for call in calls])
    around = [c.seconds - c.profile.seconds - c.profile.measuring for c in calls]
    maker.rows.append(maker.row(-1, -1, AROUND, 1, around))
    whole = sum(row.seconds for row in maker.rows)
    rows = tuple(replace(row, share=row.seconds / whole if whole else 0.0) for row in maker.rows)
    times = [call.seconds for call in calls]
    low, middle, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return ProfileReport(
        path, name, engine, threads, len(calls), whole, (low, middle, high), peaks, rows,
        tuple(maker.unseen), ordinary,
    )  # fmt: skip


class _Rows:
    """Rows in the making, their shares still open."""

    def __init__(self, program: LoadedProgram, method: Method, peaks: Peaks) -> None:
        self.program = program
        self.method = method
        self.peaks = peaks
        self.rows: list[Row] = []
        self.unseen: list[Unseen] = []

    def row(
        self, instruction: int, node: int, label: str, calls: float, times: list[float], **rest: Any
    ) -> Row:
        """A row with the first decile of ``times``, one for each call of the method."""
        usual = sorted(times)[len(times) // 10]
        return Row(instruction, node, label, calls, max(usual, 0.0), 0.0, **rest)

    def add(self, samples: Sequence[InstructionProfile]) -> None:
        """An instruction, as each call has it."""
        one = samples[-1]
        calls = _mean(sample.calls for sample in samples)
        instruction = self.method.instructions[one.position]
        if isinstance(instruction, DelegateCall) and one.nodes:
            self.rows += self._nodes(samples, instruction)
            left = [s.seconds - sum(node.seconds for node in s.nodes) for s in samples]
            self.rows.append(self.row(one.position, -1, BETWEEN, calls, left))
            return
        least = one.bytes * calls / self.peaks.bandwidth(one.bytes)
        self.rows.append(
            self.row(
                one.position,
                -1,
                one.label,
                calls,
                [sample.seconds for sample in samples],
                origin=one.origin,
                bytes=one.bytes,
                least_seconds=least or None,
                engine="kernel" if one.bytes else "",
            )  # fmt: skip
        )

    def _nodes(self, samples: Sequence[InstructionProfile], call: DelegateCall) -> list[Row]:
        one = samples[-1]
        delegate = self.method.delegates[call.delegate]
        graph = read_payload(delegate.payload, self.program.program.named_data)
        values = {value.id: value for value in graph.values}
        shapes = {v.id: v.shape for v in graph.values if v.data is not None}
        shapes.update(zip(graph.inputs, one.shapes, strict=True))
        infer(graph.nodes, shapes)
        timed = {node.position for node in one.nodes if node.position >= 0}
        carried: dict[int, list[int]] = {}
        for position, carrier in carriers(graph.nodes, timed).items():
            kind = graph.nodes[position].kind.name
            self.unseen.append(Unseen(one.position, position, kind, carrier))
            if carrier is not None:
                carried.setdefault(carrier, []).append(position)
        found = []
        for node in one.nodes:
            same = list(_of(samples, node))
            calls = _mean(other.calls for other in same)
            more: dict[str, Any] = {}
            if node.position >= 0:
                group = sorted([*carried.get(node.position, ()), node.position])
                outside = [n for i, n in enumerate(graph.nodes) if i not in group]
                later = {*graph.outputs, *(i for other in outside for i in other.inputs)}
                work = work_of([graph.nodes[i] for i in group], shapes, values, later)
                least = self.peaks.least_seconds(work.operations, work.bytes, int8=work.int8)
                more = {
                    "work": work,
                    "bytes": work.bytes,
                    "least_seconds": calls * least,
                    "with_nodes": tuple(i for i in group if i != node.position),
                }
            found.append(
                self.row(
                    one.position,
                    node.position,
                    node.kind,
                    calls,
                    [other.seconds for other in same],
                    origin=node.origin,
                    engine=node.engine,
                    operators=node.operators,
                    **more,
                )  # fmt: skip
            )
        return found


def _mean(counts: Iterable[int]) -> float:
    numbers = list(counts)
    return sum(numbers) / len(numbers)


def _of(samples: Iterable[InstructionProfile], node: NodeProfile) -> Iterable[NodeProfile]:
    """The same node in each of ``samples``."""
    for sample in samples:
        for other in sample.nodes:
            if (other.position, other.kind) == (node.position, node.kind):
                yield other

"""Reports of real programs: nothing is lost, and traces and groups say the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.errors import InputError
from penstock.runtime.program import LoadedProgram, load
from penstock.tools.profiling.groups import GROUPINGS, by_module, by_node, by_operator
from penstock.tools.profiling.machine import Peaks
from penstock.tools.profiling.measure import (
    Call,
    measure,
    ordinary_seconds,
    require_fixed_sizes,
)
from penstock.tools.profiling.report import AROUND, BETWEEN, ProfileReport, report
from penstock.tools.profiling.trace import trace

STOCK = Path(__file__).parents[2] / "formats" / "stock"
PEAKS = Peaks("some processor", 1, 100e9, 400e9, 10e9, 100e9, 1 << 20)


def profiled(
    program: LoadedProgram, runs: int = 5, engine: str = "auto"
) -> tuple[ProfileReport, list[Call]]:
    inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
    calls = measure(program, None, inputs, runs=runs)
    return report(program, "model.pte", engine, 1, calls, PEAKS), calls


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_quartiles_lie_between_the_calls(runs: int) -> None:
    program = load(STOCK / "image_fp32.pte", threads=1, profile=True)
    found, calls = profiled(program, runs)
    times = [call.seconds for call in calls]
    low, middle, high = found.quartiles
    assert min(times) <= low <= middle <= high <= max(times)


@pytest.mark.parametrize("engine", ["auto", "xnnpack"])
@pytest.mark.parametrize("name", ["image_fp32", "image_q8", "partly", "rows_inline", "nested"])
def test_nothing_is_lost(name: str, engine: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1, engine=engine, profile=True)
    found, calls = profiled(program)
    method = program.program.method("forward")
    assert method is not None and found.calls == len(calls) == 5
    assert sum(row.seconds for row in found.rows) == pytest.approx(found.seconds)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert found.rows[-1].label == AROUND
    # Each instruction and each node of a delegate is there, as a row or as what ran with one.
    assert {r.instruction for r in found.rows} == {-1, *range(len(method.instructions))}
    timed = {(row.instruction, row.node) for row in found.rows if row.node >= 0}
    for one in calls[0].profile.instructions:
        if one.nodes:
            (left,) = (r for r in found.rows if (r.instruction, r.node) == (one.position, -1))
            assert left.label == BETWEEN
            positions = {node for place, node in timed if place == one.position}
            unseen = {u.node for u in found.unseen if u.instruction == one.position}
            assert positions.isdisjoint(unseen)
            assert positions | unseen == set(range(len(positions) + len(unseen)))
    for other in found.unseen:
        if other.ran_with is not None:
            (row,) = (
                r for r in found.rows
                if (r.instruction, r.node) == (other.instruction, other.ran_with)
            )  # fmt: skip
            assert other.node in row.with_nodes
    for row in found.rows:
        if row.node >= 0:
            assert row.engine in ("native", "xnnpack") and row.operators
            assert engine == "auto" or row.engine == "xnnpack"
            assert row.work is not None and row.work.bytes > 0 and row.least_seconds


def test_groups_share_the_time_out() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()),
        torch.nn.Flatten(),
        torch.nn.Linear(288, 4),
    )
    lowered = penstock.lower(model, (torch.randn(1, 3, 8, 8),))
    program = load(lowered.to_bytes(), threads=1, profile=True)
    found, _ = profiled(program)
    for name, grouping in GROUPINGS.items():
        groups = grouping(found)
        top = [group for group in groups if group.depth == (0 if name != "module" else 1)]
        assert sum(group.seconds for group in top) == pytest.approx(found.seconds)
    whole, *rest = by_module(found)
    names = [group.name for group in rest]
    assert whole.name == "" and whole.share == pytest.approx(1)
    assert {"0", "0.0", "2"} <= set(names)
    assert names.index("0") < names.index("0.0")  # what is below comes after
    assert [group.name for group in by_module(found, depth=1)] == [
        "", *(group.name for group in rest if group.depth == 1)
    ]  # fmt: skip
    assert {"aten.conv2d.default", "aten.linear.default"} <= {g.name for g in by_operator(found)}
    products = 2 * 36 * 27 * 8 + 2 * 288 * 4
    assert products <= whole.operations <= products + 36 * 8
    times = [group.seconds for group in by_node(found)]
    assert times == sorted(times, reverse=True)
    # All of it is plain data.
    assert json.loads(json.dumps(found.as_dict()))["rows"][0]["operator"]


def test_sizes_and_numbers_of_runs() -> None:
    program = load(STOCK / "rows_dynamic_q8.pte", threads=1, profile=True)
    with pytest.raises(InputError, match="input 0 has no fixed size .*--inputs"):
        require_fixed_sizes(program, None)
    (spec,) = program.method().inputs
    # The work is that of the sizes that came.
    operations = []
    for rows in (1, 3):
        calls = measure(program, None, [np.ones((rows, *spec.shape[1:]), np.float32)], runs=2)
        found = report(program, "", "auto", 1, calls, PEAKS)
        operations.append(sum(row.work.operations for row in found.rows if row.work is not None))
    assert operations[1] == 3 * operations[0] > 0
    fixed = load(STOCK / "partly.pte", threads=1, profile=True)
    require_fixed_sizes(fixed, None)
    with pytest.raises(InputError, match="runs is 0, it must be at least 1"):
        measure(fixed, None, [], runs=0)
    with pytest.raises(InputError, match="seconds is 0, it must be more than 0"):
        measure(fixed, None, [], seconds=0)
    heard: list[float] = []
    inputs = [np.ones(spec.shape, spec.dtype) for spec in fixed.method().inputs]
    calls = measure(fixed, None, inputs, seconds=0.01, on_call=heard.append)
    assert len(calls) == len(heard) >= 3 and heard == sorted(heard) and heard[-1] == 1


@pytest.mark.parametrize("name", ["image_q8", "partly"])
def test_traces_nest(name: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1, profile=True)
    found, calls = profiled(program, runs=4)
    read = json.loads(trace(found, calls))
    assert read["displayTimeUnit"] == "ms"
    named = [event for event in read["traceEvents"] if event["ph"] == "M"]
    assert {event["name"] for event in named} == {"process_name", "thread_name"}
    events = [event for event in read["traceEvents"] if event["ph"] == "X"]
    assert len(named) + len(events) == len(read["traceEvents"])
    depths = {"method": 0, "instruction": 1, "node": 2}
    for event, depth in zip(events, in_perfetto(events), strict=True):
        assert {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"} == set(event)
        assert depth == depths[event["cat"]], event
    names = [event["name"] for event in events]
    assert names.count(events[0]["name"]) == len(calls) == 4
    nodes = sum(len(one.nodes) for call in calls for one in call.profile.instructions)
    assert [event["cat"] for event in events].count("node") == nodes


def test_traces_nest_to_the_nanosecond() -> None:
    """Of any lengths: none too, as XNNPACK's clock of microseconds gives, and long ones."""
    found, calls = profiled(load(STOCK / "image_q8.pte", threads=1, profile=True), runs=3)
    generator = np.random.default_rng(0)
    for scale in (0.0, 1e-9, 1e-7, 1e-5, 1.0):
        other = [call_of(call, generator, scale) for call in calls]
        events = [
            event for event in json.loads(trace(found, other))["traceEvents"] if event["ph"] == "X"
        ]
        depths = {"method": 0, "instruction": 1, "node": 2}
        assert in_perfetto(events) == [depths[event["cat"]] for event in events]


def call_of(call: Call, generator: np.random.Generator, scale: float) -> Call:
    """The same call with nodes of random lengths, that make up their instructions and the call."""
    instructions = []
    for one in call.profile.instructions:
        nodes = [replace(n, seconds=scale * float(generator.random())) for n in one.nodes]
        seconds = sum(node.seconds for node in nodes) or scale * float(generator.random())
        instructions.append(replace(one, nodes=tuple(nodes), seconds=seconds))
    profile = replace(call.profile, instructions=tuple(instructions))
    return replace(call, profile=profile, seconds=sum(one.seconds for one in instructions))


def in_perfetto(events: list[dict[str, Any]]) -> list[int | None]:
    """How deep Perfetto's trace processor puts each complete event of a thread; None where it drops
    it. (Its rules: whole nanoseconds; an event ends those that end at its begin or before, unless
    both have no length; what ends beyond the one that it lies in is dropped.)"""
    stack: list[tuple[int, int]] = []
    found: list[int | None] = []
    for event in events:
        begin, length = (round(1000 * event[key]) for key in ("ts", "dur"))
        while stack and (
            stack[-1][1] < begin
            or (stack[-1][1] == begin and not (stack[-1][0] == stack[-1][1] and length == 0))
        ):
            stack.pop()
        if any(begin < end < begin + length for _, end in stack):
            found.append(None)
            continue
        found.append(len(stack))
        stack.append((begin, begin + length))
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)  # it sorts them
    return found


def test_what_measuring_adds_is_said() -> None:
    """Beside calls in which nothing is measured; where the parts are most of these, nothing."""
    found, _ = profiled(load(STOCK / "image_fp32.pte", threads=1, profile=True), runs=3)
    assert found.ordinary is None and found.mind is None
    small = replace(found, seconds=2e-4, ordinary=5e-5)
    assert "the parts add up to 4 times an ordinary call" in str(small.mind)
    assert small.as_dict()["mind"] == small.mind and "up to 4 times" in small._repr_html_()
    assert replace(found, seconds=1.1e-4, ordinary=1e-4).mind is None
    program = load(STOCK / "image_fp32.pte", threads=1)
    inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
    assert ordinary_seconds(program, None, inputs, runs=2) > 0.0
    assert ordinary_seconds(program, None, inputs, seconds=1e-3) > 0.0

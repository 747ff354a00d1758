"""Branches and loops as jumps.

The graphs of a control flow operator are emitted in place. A jump is taken where its condition is
false; a condition that is always false makes it unconditional.

A branch::

      jump no      unless condition
      ...          the first graph, its results where those of the operator belong
      jump end
  no: ...          the second graph, its results in the same place
  end:

A loop carries its values in tensors of their own, which are copied to at the end of each run::

      copy         initial values -> carried
  top: ...         the condition
      jump end     unless it holds
      ...          the body
      copy         its results -> carried
      jump top
  end:

Loops over rows (scan, map) count, select a row of each operand, and append to the stacked results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import control_flow
from penstock.compiler.fx.control_flow import graph_names, operands
from penstock.compiler.fx.marks import STACKED
from penstock.formats import program as pte

CLONE = pte.Operator("aten::clone", "out")
SELECT = pte.Operator("aten::select_copy", "int_out")
SIZE = pte.Operator("aten::sym_size", "int")
APPEND = pte.Operator("executorch_prim::et_copy_index", "tensor")
ADD = pte.Operator("executorch_prim::add", "Scalar")
LESS = pte.Operator("executorch_prim::lt", "Scalar")


class Emitter(Protocol):
    """What emits a method, as far as control flow needs it."""

    module: GraphModule
    values: list[pte.Value]
    instructions: list[pte.Instruction]
    lives: dict[int, list[int]]
    index: dict[Node, Any]

    def add(self, value: pte.Value) -> int: ...
    def touch(self, value: int, instruction: int) -> None: ...
    def call(self, kernel: pte.Operator, arguments: Sequence[int]) -> None: ...
    def argument(self, value: Any) -> int: ...
    def result(self, node: Node, value: Any, position: int = 0) -> int: ...
    def graph(
        self, module: GraphModule, inputs: Sequence[int], results: Sequence[int] | None
    ) -> list[int]: ...


def emit_control_flow(emitter: Emitter, node: Node) -> list[int]:
    """Emits a control flow operator; returns the values of its results."""
    return _EMIT[node.target](emitter, node)


def _cond(e: Emitter, node: Node) -> list[int]:
    condition = e.argument(node.args[0])
    inputs = [e.argument(item) for item in operands(node).shared]
    results = _results(e, node)
    first, second = _graphs(e, node)
    to_second = _jump(e, condition)
    e.graph(first, inputs, results)
    to_end = _jump(e, e.add(False))
    _land(e, to_second)
    e.graph(second, inputs, results)
    _land(e, to_end)
    return results


def _while_loop(e: Emitter, node: Node) -> list[int]:
    given = operands(node)
    carried = _results(e, node)
    shared = [e.argument(item) for item in given.shared]
    _copy_all(e, [e.argument(item) for item in given.carried], carried)
    condition, body = _graphs(e, node)
    top = len(e.instructions)
    (holds,) = e.graph(condition, [*carried, *shared], None)
    to_end = _jump(e, holds)
    _copy_all(e, e.graph(body, [*carried, *shared], None), carried)
    _close(e, top, to_end)
    return carried


def _over_rows(e: Emitter, node: Node) -> list[int]:
    given = operands(node)
    (body,) = _graphs(e, node)
    results = _results(e, node)
    carried, stacked = results[: len(given.carried)], results[len(given.carried) :]
    rows = [e.argument(item) for item in given.rows]
    shared = [e.argument(item) for item in given.shared]
    _copy_all(e, [e.argument(item) for item in given.carried], carried)
    for value in stacked:
        e.touch(value, len(e.instructions))  # from here on: it is written to row by row
    zero, one, count, number, holds = (e.add(value) for value in (0, 1, 0, 0, False))
    e.call(SIZE, [rows[0], zero, count])
    _move(e, zero, number)
    top = len(e.instructions)
    e.call(LESS, [number, count, holds])
    to_end = _jump(e, holds)
    inputs = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
    taken = inputs[len(carried) : len(carried) + len(rows)]
    current = [e.result(inner, inner.meta["val"]) for inner in taken]
    for source, row in zip(rows, current, strict=True):
        e.call(SELECT, [source, zero, number, row, row])
    made = e.graph(body, [*carried, *current, *shared], None)
    for row, whole in zip(made[len(carried) :], stacked, strict=True):
        e.call(APPEND, [whole, row, number])
    _copy_all(e, made[: len(carried)], carried)
    e.call(ADD, [number, one, number])
    _close(e, top, to_end)
    return results


_EMIT: Mapping[Any, Callable[[Emitter, Node], list[int]]] = {
    control_flow.cond: _cond,
    control_flow.while_loop: _while_loop,
    control_flow.scan: _over_rows,
    control_flow.map_rows: _over_rows,
}


def _graphs(e: Emitter, node: Node) -> list[GraphModule]:
    found = [e.module.get_submodule(str(name.target)) for name in graph_names(node)]
    assert all(isinstance(item, GraphModule) for item in found)
    return found  # type: ignore[return-value]


def _results(e: Emitter, node: Node) -> list[int]:
    """The values that hold the operator's results. Those that grow row by row are dynamic in the
    file, whatever is known of their sizes."""
    stacked = node.kwargs.get(STACKED) or []
    assert isinstance(stacked, (list, tuple))
    values = node.meta["val"]
    first = len(values) - len(stacked)
    results = []
    for position, value in enumerate(values):
        held = stacked[position - first] if position >= first else None
        if held is not None:
            results.append(int(e.index[held]))
            continue
        results.append(e.result(node, value, position))
        tensor = e.values[results[-1]]
        if position >= first and isinstance(tensor, pte.Tensor):
            tensor.dynamism = pte.Dynamism.DYNAMIC_BOUND
    return results


def _jump(e: Emitter, condition: int) -> int:
    """A jump to where :func:`_land` says; returns its place."""
    e.touch(condition, len(e.instructions))
    e.instructions.append(pte.JumpFalseCall(condition, -1))
    return len(e.instructions) - 1


def _land(e: Emitter, place: int) -> None:
    jump = e.instructions[place]
    assert isinstance(jump, pte.JumpFalseCall)
    e.instructions[place] = replace(jump, destination=len(e.instructions))


def _close(e: Emitter, top: int, to_end: int) -> None:
    """The end of a loop: what was there before it and is used in it lives until here."""
    e.instructions.append(pte.JumpFalseCall(e.add(False), top))
    _land(e, to_end)
    for life in e.lives.values():
        if life[0] < top <= life[1]:
            life[1] = max(life[1], len(e.instructions) - 1)


def _copy_all(e: Emitter, sources: Sequence[int], targets: Sequence[int]) -> None:
    """Copies as if all at once: a source that is one of the targets is put aside before."""
    kept: list[int] = []
    for source, target in zip(sources, targets, strict=True):
        if source != target and source in targets:
            aside = _alike(e, source)
            copy(e, source, aside)
            source = aside
        kept.append(source)
    for source, target in zip(kept, targets, strict=True):
        if source != target:
            copy(e, source, target)


def _alike(e: Emitter, value: int) -> int:
    original = e.values[value]
    if not isinstance(original, pte.Tensor):
        return e.add(original)
    made = e.add(replace(original, allocation=None, data=None, name=None))
    e.lives[made] = [len(e.instructions)] * 2
    return made


def copy(e: Emitter, source: int, target: int) -> None:
    """The content of one value into another."""
    if isinstance(e.values[target], pte.Tensor):
        e.call(CLONE, [source, e.add(None), target, target])
    else:
        _move(e, source, target)


def _move(e: Emitter, source: int, target: int) -> None:
    e.instructions.append(pte.MoveCall(source, target))


def is_number(value: Any) -> bool:
    """Whether a graph's value is a number and no tensor."""
    return isinstance(value, (int, float, torch.SymInt, torch.SymFloat, torch.SymBool))

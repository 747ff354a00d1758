"""Recurrent layers over a fixed length, unrolled; and their cells.

Every product of a step keeps its own packed copy of the weights in XNNPACK's runtime, which
bounds how long a layer may be. With int8 weights (``penstock::dynamic_lstm`` …) all products read
rows that are quantized at run time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.recurrence import (
    Make,
    State,
    gru,
    lstm,
    plain,
    unrolled,
    weights_of,
)
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import is_constant, rank_fits, tensors_of
from penstock.compiler.delegate.operators.registry import Constraint, Recurrent, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.dynamic_recurrence import DYNAMIC, FLOATING
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten

#: How much the packed weights of all steps may take, in bytes.
MOST_PACKED_BYTES = 128 * 2**20
MOST_STEPS = 512


# --- constraints -------------------------------------------------------------------------------


def _only_floats(node: Node) -> str | None:
    """Every tensor is float32."""
    value = node.meta.get("val")
    results = value if isinstance(value, (tuple, list)) else [value]
    for tensor in (*tensors_of(node), *results):
        if isinstance(tensor, torch.Tensor) and tensor.dtype != torch.float32:
            return f"it works on {str(tensor.dtype).removeprefix('torch.')}, not float32"
    return None


def _parameters(node: Node) -> list[Node]:
    """The weights and biases, in the order of the arguments."""
    named = arguments(node)
    if "params" in named:
        return list(named["params"])
    found = [named[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    return [item for item in found if item is not None]


def _matrices(node: Node) -> list[Node]:
    """The weights: of the inputs, of the state, of projections."""
    return [item for item in _parameters(node) if item.meta["val"].dim() == 2]


def _constant_parameters(node: Node) -> str | None:
    """Constant weights."""
    if all(map(is_constant, _parameters(node))):
        return None
    return "its weights are computed at run time, XNNPACK needs constants"


def _batched(node: Node) -> str | None:
    """No packed sequences."""
    if "data" in arguments(node):
        return "it runs over packed sequences, whose lengths are data"
    return None


LAYER = (_batched, _only_floats, rank_fits, _constant_parameters)
CELL = (_only_floats, rank_fits, _constant_parameters)


def _reason_against_unrolling(node: Node, itemsize: int) -> str | None:
    """Why the steps of a layer, with weights of so many bytes, cannot be written out. (No
    constraint: it would be taken apart before it is lowered, into the same steps.)"""
    named = arguments(node)
    if named["train"] and named["dropout"]:
        return "it drops out at random (training mode)"
    shape = layout.shape_of(node.meta["val"][0])
    steps = shape[1 if len(shape) == 3 and named["batch_first"] else 0]
    if not isinstance(steps, int):
        return "its sequence has a dynamic length: its steps are unrolled, which takes a fixed one"
    if steps > MOST_STEPS:
        return f"its {steps} steps would be unrolled, at most {MOST_STEPS} are"
    runs = int(named["num_layers"]) * (2 if named["bidirectional"] else 1)
    sizes = [math.prod(item.meta["val"].shape) for item in _matrices(node)]
    packed = steps * itemsize * (sum(sizes) - sum(sizes[:: len(sizes) // runs]))
    if packed > MOST_PACKED_BYTES:
        return f"its weights would take {packed >> 20} MiB when it is unrolled"
    return None


def _first_reason(*constraints: Constraint) -> Constraint:
    return lambda node: next(filter(None, (check(node) for check in constraints)), None)


QUANTIZED_LAYER = Recurrent(
    _matrices, _first_reason(*LAYER, lambda node: _reason_against_unrolling(node, 1))
)
QUANTIZED_CELL = Recurrent(_matrices, _first_reason(*CELL))


# --- layers ------------------------------------------------------------------------------------


def lower_layers(
    b: GraphBuilder, node: Node, make: Make, hidden: Sequence[Any]
) -> tuple[Tensor, ...]:
    """The outputs of the last layer, then the last states of all layers and directions, each
    [layers * directions, N, H]."""
    dynamic = node.target in FLOATING
    reason = _reason_against_unrolling(node, 1 if dynamic else 4)
    if reason is not None:
        raise LoweringError(reason)
    named = arguments(node)
    x = b.tensor(named["input"])
    states = [b.tensor(item) for item in hidden]
    unbatched = x.rank == 2
    if unbatched:
        x = b.reshape(x, (x.shape[0], 1, x.shape[1]))
        states = [b.reshape(s, (s.shape[0], 1, s.shape[1])) for s in states]
    elif named["batch_first"]:
        x = b.permute(x, (1, 0, 2))
    directions = 2 if named["bidirectional"] else 1
    runs = int(named["num_layers"]) * directions
    parameters = list(named["params"])
    each = len(parameters) // runs
    weights = [
        weights_of(
            b,
            parameters[i * each : (i + 1) * each],
            bool(named["has_biases"]),
            dynamic,
        )
        for i in range(runs)
    ]
    last: list[State] = []
    for layer in range(int(named["num_layers"])):
        outputs = []
        for direction in range(directions):
            run = layer * directions + direction
            first = tuple(_row(b, state, run) for state in states)
            output, state = unrolled(b, x, first, make, weights[run], direction == 1)
            outputs.append(output)
            last.append(state)
        x = ex.concatenate(b, outputs, 2)
    finals = []
    for position in range(len(states)):
        rows = [state[position] for state in last]
        final = ex.concatenate(b, [b.reshape(row, (1, *row.shape)) for row in rows], 0)
        finals.append(b.reshape(final, (runs, *final.shape[2:])) if unbatched else final)
    if unbatched:
        x = b.reshape(x, (x.shape[0], x.shape[2]))
    elif named["batch_first"]:
        x = b.permute(x, (1, 0, 2))
    return (x, *finals)


def _row(b: GraphBuilder, state: Tensor, index: int) -> Tensor:
    row = ex.cut(b, state, 0, index, 1)
    return b.reshape(row, row.shape[1:])


NOTES = "over a fixed length, unrolled; several layers, both directions"
IN_INT8 = "int8 weights; rows of the input are quantized at run time, and in each step of the state"


def _register(
    name: str,
    target: Any,
    lower: Callable[[GraphBuilder, Node], Tensor | tuple[Tensor, ...]],
    constraints: Sequence[Constraint],
    rule: Recurrent,
    notes: str = "",
) -> None:
    """The entry of an operator, and that of the one that it becomes with int8 weights."""
    operator(name, target, constraints=constraints, quantization=rule, notes=notes)(lower)
    operator(
        f"{name} (dynamic)", DYNAMIC[target], constraints=constraints,
        notes="; ".join(filter(None, (notes, IN_INT8))),
    )(lower)  # fmt: skip


def _register_layer(name: str, target: Any, make: Make) -> None:
    def lower(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
        hidden = arguments(node)["hx"]
        return lower_layers(b, node, make, hidden if name == "lstm" else [hidden])

    notes = f"{NOTES}; projected states" if name == "lstm" else NOTES
    _register(name, target, lower, LAYER, QUANTIZED_LAYER, notes)


MAKERS: dict[str, Make] = {
    "lstm": lstm,
    "gru": gru,
    "rnn_tanh": plain(NodeKind.TANH),
    "rnn_relu": plain(NodeKind.CLAMP),
}

for _name, _make in MAKERS.items():
    _register_layer(_name, getattr(aten, _name).input, _make)


# --- cells -------------------------------------------------------------------------------------


def lower_one_step(
    b: GraphBuilder, node: Node, make: Make, hidden: Sequence[Any]
) -> tuple[Tensor, ...]:
    named = arguments(node)
    has_biases = named["b_ih"] is not None
    weights = weights_of(b, _parameters(node), has_biases, node.target in FLOATING)
    x = b.tensor(named["input"])
    states = [b.tensor(item) for item in hidden]
    unbatched = x.rank == 1
    if unbatched:
        x, *states = (b.reshape(item, (1, *item.shape)) for item in (x, *states))
    product, step = make(b, weights)
    results = step(product(x), tuple(states))
    return tuple(b.reshape(r, r.shape[1:]) if unbatched else r for r in results)


def _register_cell(name: str, target: Any, make: Make) -> None:
    def lower(b: GraphBuilder, node: Node) -> Tensor | tuple[Tensor, ...]:
        hidden = arguments(node)["hx"]
        if name == "lstm":
            return lower_one_step(b, node, make, hidden)
        return lower_one_step(b, node, make, [hidden])[0]

    _register(f"{name}_cell", target, lower, CELL, QUANTIZED_CELL)


for _name, _make in MAKERS.items():
    _register_cell(_name, getattr(aten, f"{_name}_cell").default, _make)

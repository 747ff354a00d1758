"""Recurrent layers over a fixed length, unrolled; and their cells.

The inputs' part of the gates is one product for all steps; each step adds the hidden state's part.
Every product of a step keeps its own packed copy of the weights in XNNPACK's runtime, which
bounds how long a layer may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import is_constant, rank_fits, tensors_of
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx.arguments import arguments
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


def _constant_parameters(node: Node) -> str | None:
    """Constant weights."""
    named = arguments(node)
    if "params" in named:
        parameters = list(named["params"])
    else:
        parameters = [named[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    if all(item is None or is_constant(item) for item in parameters):
        return None
    return "its weights are computed at run time, XNNPACK needs constants"


def _batched(node: Node) -> str | None:
    """No packed sequences."""
    if "data" in arguments(node):
        return "it runs over packed sequences, whose lengths are data"
    return None


LAYER = (_batched, _only_floats, rank_fits, _constant_parameters)
CELL = (_only_floats, rank_fits, _constant_parameters)


# --- one direction of one layer ----------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Of one direction of one layer: [gates * H, I], [gates * H, H or P], biases, [P, H]."""

    input: torch.Tensor
    hidden: torch.Tensor
    input_bias: torch.Tensor
    hidden_bias: torch.Tensor
    projection: torch.Tensor | None = None


class Product:
    """``x @ weight.T + bias`` many times with one weight."""

    def __init__(
        self, b: GraphBuilder, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> None:
        self.builder = b
        constant = b.constant(weight.contiguous())
        value = ex.weight_value(b, constant, (0, 1))
        self.weight = Tensor(constant.shape, (0, 1), constant.shape, value)
        self.bias = None
        if bias is not None and bool(bias.any()):
            self.bias = ex.bias_value(b, b.constant(bias.contiguous()))

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` is [..., in], in any order of memory."""
        b = self.builder
        x = ex.innermost(b, x, x.rank - 1)
        output = b.result((*x.shape[:-1], self.weight.shape[0]), x.order)
        return b.add_node(NodeKind.FULLY_CONNECTED, [x, self.weight, self.bias], output)


#: The hidden (and cell) state.
State: TypeAlias = "tuple[Tensor, ...]"
#: From the inputs' part of the gates and the state, the next state.
Step: TypeAlias = "Callable[[Tensor, State], State]"


def _is_zero(tensor: Tensor) -> bool:
    return tensor.constant is not None and not bool(tensor.real().any())


def _piece(b: GraphBuilder, x: Tensor, start: int, size: int) -> Tensor:
    return ex.cut(b, x, x.rank - 1, start, size)


def _lstm(b: GraphBuilder, weights: Weights) -> tuple[Product, Step]:
    """Gates in the order input, forget, output, cell: the first three share one sigmoid."""
    size = weights.input.shape[0] // 4
    order = torch.cat([torch.arange(2 * size), torch.arange(3 * size, 4 * size),
                       torch.arange(2 * size, 3 * size)])  # fmt: skip
    bias = (weights.input_bias + weights.hidden_bias)[order]
    inputs = Product(b, weights.input[order], bias)
    hidden = Product(b, weights.hidden[order])
    projection = None if weights.projection is None else Product(b, weights.projection)

    def step(gates: Tensor, state: State) -> State:
        h, c = state
        if not _is_zero(h):
            gates = ex.add(b, gates, hidden(h))
        open_ = b.unary(NodeKind.SIGMOID, _piece(b, gates, 0, 3 * size))
        new = b.unary(NodeKind.TANH, _piece(b, gates, 3 * size, size))
        enter, forget, leave = (_piece(b, open_, i * size, size) for i in range(3))
        cell = ex.multiply(b, enter, new)
        if not _is_zero(c):
            cell = ex.add(b, ex.multiply(b, forget, c), cell)
        out = ex.multiply(b, leave, b.unary(NodeKind.TANH, cell))
        return (out if projection is None else projection(out), cell)

    return inputs, step


def _gru(b: GraphBuilder, weights: Weights) -> tuple[Product, Step]:
    """``n = tanh(x_n + r * h_n)``, ``h' = n + z * (h - n)``; reset and update share one sigmoid."""
    size = weights.input.shape[0] // 3
    gates_bias = weights.input_bias.clone()
    gates_bias[: 2 * size] += weights.hidden_bias[: 2 * size]
    inputs = Product(b, weights.input, gates_bias)
    hidden_gates = Product(b, weights.hidden[: 2 * size])
    hidden_new = Product(b, weights.hidden[2 * size :], weights.hidden_bias[2 * size :])

    def step(gates: Tensor, state: State) -> State:
        (h,) = state
        opening = _piece(b, gates, 0, 2 * size)
        if not _is_zero(h):
            opening = ex.add(b, opening, hidden_gates(h))
        open_ = b.unary(NodeKind.SIGMOID, opening)
        reset, update = (_piece(b, open_, i * size, size) for i in range(2))
        remembered = ex.multiply(b, reset, hidden_new(h))
        new = b.unary(NodeKind.TANH, ex.add(b, _piece(b, gates, 2 * size, size), remembered))
        return (ex.add(b, new, ex.multiply(b, update, ex.subtract(b, h, new))),)

    return inputs, step


def _plain(kind: NodeKind) -> Callable[[GraphBuilder, Weights], tuple[Product, Step]]:
    def make(b: GraphBuilder, weights: Weights) -> tuple[Product, Step]:
        inputs = Product(b, weights.input, weights.input_bias + weights.hidden_bias)
        hidden = Product(b, weights.hidden)

        def step(gates: Tensor, state: State) -> State:
            (h,) = state
            if not _is_zero(h):
                gates = ex.add(b, gates, hidden(h))
            return (b.unary(kind, gates, None, ex.RELU if kind is NodeKind.CLAMP else None),)

        return inputs, step

    return make


Make: TypeAlias = "Callable[[GraphBuilder, Weights], tuple[Product, Step]]"


def unrolled(
    b: GraphBuilder, x: Tensor, state: State, make: Make, weights: Weights, backwards: bool
) -> tuple[Tensor, State]:
    """One direction over ``x`` [T, N, I]: its outputs [T, N, H] and the last state."""
    steps = x.shape[0]
    assert isinstance(steps, int)
    product, step = make(b, weights)
    gates = product(x)
    outputs: list[Tensor] = []
    for time in range(steps - 1, -1, -1) if backwards else range(steps):
        now = ex.cut(b, gates, 0, time, 1)
        state = step(b.reshape(now, now.shape[1:]), state)
        outputs.append(b.reshape(state[0], (1, *state[0].shape)))
    if backwards:
        outputs.reverse()
    return ex.concatenate(b, outputs, 0), state


# --- layers ------------------------------------------------------------------------------------


def _weights(b: GraphBuilder, parameters: Sequence[Any], has_biases: bool) -> Weights:
    tensors = [b.tensor(item).real().to(torch.float32) for item in parameters]
    count = 4 if has_biases else 2
    gates = tensors[0].shape[0]
    biases = tensors[2:4] if has_biases else [torch.zeros(gates)] * 2
    projection = tensors[count] if len(tensors) > count else None
    return Weights(tensors[0], tensors[1], biases[0], biases[1], projection)


def _check_size(steps: object, all_weights: Sequence[Weights]) -> None:
    if not isinstance(steps, int):
        raise LoweringError(
            "its sequence has a dynamic length: its steps are unrolled, which takes a fixed one"
        )
    if steps > MOST_STEPS:
        raise LoweringError(f"its {steps} steps would be unrolled, at most {MOST_STEPS} are")
    packed = steps * sum(
        weights.hidden.numel() * 4
        + (0 if weights.projection is None else weights.projection.numel() * 4)
        for weights in all_weights
    )
    if packed > MOST_PACKED_BYTES:
        raise LoweringError(f"its weights would take {packed >> 20} MiB when it is unrolled")


def lower_layers(
    b: GraphBuilder, node: Node, make: Make, hidden: Sequence[Any]
) -> tuple[Tensor, ...]:
    """The outputs of the last layer, then the last states of all layers and directions, each
    [layers * directions, N, H]."""
    named = arguments(node)
    if named["train"] and named["dropout"]:
        raise LoweringError("it drops out at random (training mode)")
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
        _weights(b, parameters[i * each : (i + 1) * each], bool(named["has_biases"]))
        for i in range(runs)
    ]
    _check_size(x.shape[0], weights)
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


LAYERS: dict[str, tuple[Any, Make]] = {
    "gru": (aten.gru.input, _gru),
    "rnn_tanh": (aten.rnn_tanh.input, _plain(NodeKind.TANH)),
    "rnn_relu": (aten.rnn_relu.input, _plain(NodeKind.CLAMP)),
}
NOTES = "over a fixed length, unrolled; several layers, both directions"


@operator("lstm", aten.lstm.input, constraints=LAYER, notes=f"{NOTES}; projected states")
def lower_lstm(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    return lower_layers(b, node, _lstm, arguments(node)["hx"])


def _register_layer(name: str, target: Any, make: Make) -> None:
    @operator(name, target, constraints=LAYER, notes=NOTES)
    def lower(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
        return lower_layers(b, node, make, [arguments(node)["hx"]])


for _name, (_target, _make) in LAYERS.items():
    _register_layer(_name, _target, _make)


# --- cells -------------------------------------------------------------------------------------


def lower_one_step(
    b: GraphBuilder, node: Node, make: Make, hidden: Sequence[Any]
) -> tuple[Tensor, ...]:
    named = arguments(node)
    weights, hidden_weights, *biases = (
        None if named[name] is None else b.tensor(named[name]).real().to(torch.float32)
        for name in ("w_ih", "w_hh", "b_ih", "b_hh")
    )
    assert weights is not None and hidden_weights is not None
    zeros = torch.zeros(weights.shape[0])
    first, second = (zeros if bias is None else bias for bias in biases)
    x = b.tensor(named["input"])
    states = [b.tensor(item) for item in hidden]
    unbatched = x.rank == 1
    if unbatched:
        x, *states = (b.reshape(item, (1, *item.shape)) for item in (x, *states))
    product, step = make(b, Weights(weights, hidden_weights, first, second))
    results = step(product(x), tuple(states))
    return tuple(b.reshape(r, r.shape[1:]) if unbatched else r for r in results)


@operator("lstm_cell", aten.lstm_cell.default, constraints=CELL)
def lower_lstm_cell(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    return lower_one_step(b, node, _lstm, arguments(node)["hx"])


CELLS: dict[str, tuple[Any, Make]] = {
    "gru_cell": (aten.gru_cell.default, _gru),
    "rnn_tanh_cell": (aten.rnn_tanh_cell.default, _plain(NodeKind.TANH)),
    "rnn_relu_cell": (aten.rnn_relu_cell.default, _plain(NodeKind.CLAMP)),
}


def _register_cell(name: str, target: Any, make: Make) -> None:
    @operator(name, target, constraints=CELL)
    def lower(b: GraphBuilder, node: Node) -> Tensor:
        return lower_one_step(b, node, make, [arguments(node)["hx"]])[0]


for _name, (_target, _make) in CELLS.items():
    _register_cell(_name, _target, _make)

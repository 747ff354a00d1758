"""Steps of recurrent layers, unrolled: the inputs' part of the gates is one product for all steps,
and each step adds the hidden state's part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.compiler.fx.dynamic_recurrence import rounded
from penstock.graph.kinds import NodeKind


@dataclass(frozen=True)
class Weights:
    """Constants of one direction of one layer: [gates * H, I], [gates * H, H or P], biases, [P, H].
    ``dynamic``: what they are multiplied with is quantized at run time."""

    input: Tensor
    hidden: Tensor
    input_bias: torch.Tensor
    hidden_bias: torch.Tensor
    projection: Tensor | None = None
    dynamic: bool = False


def _selected(b: GraphBuilder, weight: Tensor, rows: torch.Tensor) -> Tensor:
    assert weight.constant is not None
    quantization = weight.constant_quantization
    if quantization is not None and quantization.axis == 0 and quantization.block is None:
        quantization = replace(
            quantization, scale=quantization.scale[rows], zero_point=quantization.zero_point[rows]
        )
    return b.constant(weight.constant[rows], quantization)


class Product:
    """``x @ weight.T + bias`` many times with one weight."""

    def __init__(
        self,
        b: GraphBuilder,
        weight: Tensor,
        bias: torch.Tensor | None = None,
        dynamic: bool = False,
    ) -> None:
        self.builder = b
        self.constants = weight, bias
        self.dynamic = dynamic
        value = ex.weight_value(b, weight, (0, 1))
        self.weight = Tensor(weight.shape, (0, 1), weight.shape, value)
        self.bias = None
        if bias is not None and bool(bias.any()):
            self.bias = ex.bias_value(b, b.constant(bias.contiguous()))

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` is [..., in], in any order of memory."""
        b = self.builder
        if self.dynamic and x.constant is not None:  # XNNPACK quantizes no constants at run time
            weight, bias = self.constants
            known = torch.nn.functional.linear(rounded(b.full_constant(x)), weight.real(), bias)
            return b.constant_of(known, (*x.shape[:-1], self.weight.shape[0]))
        if self.dynamic:
            x = ex.real_rows(b, ex.quantized_rows(b, x))
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


def lstm(b: GraphBuilder, weights: Weights) -> tuple[Product, Step]:
    """Gates in the order input, forget, output, cell: the first three share one sigmoid."""
    size = weights.input.shape[0] // 4
    order = torch.cat([torch.arange(2 * size), torch.arange(3 * size, 4 * size),
                       torch.arange(2 * size, 3 * size)])  # fmt: skip
    bias = (weights.input_bias + weights.hidden_bias)[order]
    dynamic = weights.dynamic
    inputs = Product(b, _selected(b, weights.input, order), bias, dynamic)
    hidden = Product(b, _selected(b, weights.hidden, order), None, dynamic)
    projection = None
    if weights.projection is not None:
        projection = Product(b, weights.projection, None, dynamic)

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


def gru(b: GraphBuilder, weights: Weights) -> tuple[Product, Step]:
    """``n = tanh(x_n + r * h_n)``, ``h' = n + z * (h - n)``; reset and update share one sigmoid."""
    size = weights.input.shape[0] // 3
    gates_bias = weights.input_bias.clone()
    gates_bias[: 2 * size] += weights.hidden_bias[: 2 * size]
    opening_rows, new_rows = torch.arange(3 * size).split([2 * size, size])
    dynamic = weights.dynamic
    inputs = Product(b, weights.input, gates_bias, dynamic)
    hidden_gates = Product(b, _selected(b, weights.hidden, opening_rows), None, dynamic)
    hidden_new = Product(
        b, _selected(b, weights.hidden, new_rows), weights.hidden_bias[new_rows], dynamic
    )

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


def plain(kind: NodeKind) -> Callable[[GraphBuilder, Weights], tuple[Product, Step]]:
    def make(b: GraphBuilder, weights: Weights) -> tuple[Product, Step]:
        bias = weights.input_bias + weights.hidden_bias
        inputs = Product(b, weights.input, bias, weights.dynamic)
        hidden = Product(b, weights.hidden, None, weights.dynamic)

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


def weights_of(
    b: GraphBuilder, parameters: Sequence[Any], has_biases: bool, dynamic: bool
) -> Weights:
    """``parameters``: both weights, both biases or none, the projection if there is one."""
    constants = [b.tensor(item) for item in parameters]
    matrices = [constants[0], constants[1], *constants[4 if has_biases else 2 :]]
    biases = [torch.zeros(matrices[0].shape[0])] * 2
    if has_biases:
        biases = [_real(item) for item in constants[2:4]]
    if not dynamic:
        matrices = [b.constant(_real(item)) for item in matrices]
    projection = matrices[2] if len(matrices) > 2 else None
    return Weights(matrices[0], matrices[1], biases[0], biases[1], projection, dynamic)


def _real(constant: Tensor) -> torch.Tensor:
    return constant.real().to(torch.float32)

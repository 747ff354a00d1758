"""Recurrent layers and cells as XNNPACK computes them with int8 weights: each row of the input, and
in each step of the hidden state, is rounded to int8 before it is multiplied.

For each of ATen's operators one with its arguments and results: ``penstock::dynamic_lstm`` for
``aten::lstm.input``. A graph that was quantized can be run and exported with it like any other, and
shows what the rounding of the state does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: The hidden state, and of an LSTM the cell's.
State: TypeAlias = "tuple[Tensor, ...]"
#: From the input's part of the gates, the state, [gates, H] and its bias: the next state.
Step: TypeAlias = "Callable[[Tensor, State, Tensor, Tensor | None], State]"

INT8 = (-128, 127, torch.int8)


def rounded(x: Tensor) -> Tensor:
    """Each row as the nearest int8 values stand for it, of which the extremes and zero have the
    range."""
    scale, point = quantized.choose_qparams_per_token_asymmetric(x, torch.int8)
    small = quantized.quantize_per_token(x, scale, point, *INT8)
    real: Tensor = quantized.dequantize_per_token(small, scale, point, *INT8, torch.float32)
    return real


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(rounded(x), weight, bias)


def _lstm(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    h, c = state
    enter, forget, new, leave = (gates + _product(h, weight, bias)).chunk(4, -1)
    c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(c), c


def _gru(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    (h,) = state
    reset, update, new = gates.chunk(3, -1)
    own_reset, own_update, own_new = _product(h, weight, bias).chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
    return (new + torch.sigmoid(update + own_update) * (h - new),)


def _plain(function: Callable[[Tensor], Tensor]) -> Step:
    def step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        return (function(gates + _product(state[0], weight, bias)),)

    return step


def _layers(step: Step, several: bool) -> Callable[..., tuple[Tensor, ...]]:
    """The operator of whole layers. ``several``: its state is a list of tensors."""

    def layers(
        x: Tensor, hx: Any, params: Sequence[Tensor], has_biases: bool, num_layers: int,
        dropout: float, train: bool, bidirectional: bool, batch_first: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        states = tuple(hx) if several else (hx,)
        batched = x.dim() == 3
        x = x.transpose(0, 1) if batched and batch_first else x
        runs = num_layers * (2 if bidirectional else 1)
        each, count = len(params) // runs, 4 if has_biases else 2
        last: list[State] = []
        outputs = [x]
        for run in range(runs):
            if run % (runs // num_layers) == 0:
                source, outputs = torch.cat(outputs, -1), []
            weight, hidden, *more = params[run * each : (run + 1) * each]
            bias, hidden_bias = more[:2] if has_biases else (None, None)
            projection = more[-1] if each > count else None
            gates = _product(source, weight, bias).unbind(0)
            state: State = tuple(s[run] for s in states)
            backwards = bidirectional and run % 2 == 1
            steps = []
            for now in reversed(gates) if backwards else gates:
                state = step(now, state, hidden, hidden_bias)
                if projection is not None:
                    state = (_product(state[0], projection), *state[1:])
                steps.append(state[0])
            outputs.append(torch.stack(steps[::-1] if backwards else steps))
            last.append(state)
        found = torch.cat(outputs, -1)
        found = found.transpose(0, 1) if batched and batch_first else found
        return (found, *(torch.stack(rows) for rows in zip(*last, strict=True)))

    return layers


def _cell(step: Step, several: bool) -> Callable[..., Any]:
    """The operator of one step."""

    def cell(
        x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor,
        b_ih: Tensor | None = None, b_hh: Tensor | None = None,
    ) -> Any:  # fmt: skip
        state = tuple(hx) if several else (hx,)
        found = step(_product(x, w_ih, b_ih), state, w_hh, b_hh)
        return found if several else found[0]

    return cell


_library = torch.library.Library("penstock", "FRAGMENT")


def _define(target: Any, function: Callable[..., Any]) -> Any:
    """The operator with the schema of ``target`` that computes ``function``."""
    written = str(target._schema)
    name = f"dynamic_{target._schema.name.removeprefix('aten::')}"
    if not hasattr(torch.ops.penstock, name):
        _library.define(name + written[written.index("(") :])
    _library.impl(name, function, "CompositeExplicitAutograd")
    # The shapes of the results, without a loop over all steps.
    torch.library.register_fake(f"penstock::{name}", target, lib=_library, allow_override=True)
    return getattr(torch.ops.penstock, name).default


_STEPS: dict[str, tuple[Step, bool]] = {
    "lstm": (_lstm, True),
    "gru": (_gru, False),
    "rnn_tanh": (_plain(torch.tanh), False),
    "rnn_relu": (_plain(torch.relu), False),
}

#: What each operator computes.
DEFINITIONS: dict[Any, Callable[..., Any]] = {}
#: ATen's operator -> the one that rounds.
DYNAMIC: dict[Any, Any] = {}
for _name, (_step, _several) in _STEPS.items():
    for _target, _function in (
        (getattr(aten, _name).input, _layers(_step, _several)),
        (getattr(aten, f"{_name}_cell").default, _cell(_step, _several)),
    ):
        DYNAMIC[_target] = _define(_target, _function)
        DEFINITIONS[DYNAMIC[_target]] = _function

#: The other way round.
FLOATING: dict[Any, Any] = {dynamic: target for target, dynamic in DYNAMIC.items()}

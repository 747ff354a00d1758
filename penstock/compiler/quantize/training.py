"""Quantization-aware training: what differs from calibration, for ``prepare_qat_pt2e``.

The graph stays one that can be trained: no parameter is folded into another. Observers round what
they see as well (straight-through), batch norms stay between a convolution and its range until
torchao's ``convert_pt2e`` folds them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.registry import functional_twin
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.fx.writes import is_write
from penstock.compiler.quantize.observers import ActivationObserver, KnownRangeObserver
from penstock.compiler.quantize.pt2e import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QuantizationSpec,
    QuantizationSpecBase,
)
from penstock.compiler.quantize.weight_observers import (
    PerChannelWeightObserver,
    TensorWeightObserver,
)
from penstock.compiler.rewrite.functionalize import needs_tracing
from penstock.errors import QuantizationError

#: How much of each batch's range goes into the one that is kept.
NEW_PART = 0.01


def make_trainable(module: GraphModule) -> int:
    """Given ``y = relu_(x)``; later readers of ``x`` → Result ``y = relu(x)``; they read ``y``.
    Counters of batch norms are left out. Returns how many nodes changed.

    Raises :class:`QuantizationError` for an in-place operator whose effect is seen through a view.
    """
    changes = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not is_write(node):
            continue
        target = node.args[0]
        assert isinstance(target, Node)
        if _counts(node, target):
            module.graph.erase_node(node)
        elif target.op != "get_attr":
            twin = functional_twin(node.target)
            if twin is None or needs_tracing(node):
                raise QuantizationError(
                    f"{node.target}{describe_origin(node)} writes to a view: training with int8 "
                    "needs it out of place (x = x + y for x += y)"
                )
            node.target = twin
            for user in [user for user in target.users if node < user]:
                user.replace_input_with(target, node)
        else:
            continue
        changes += 1
    return changes


def _counts(node: Node, target: Node) -> bool:
    """Whether a node counts calls in a buffer that nothing else reads."""
    value = target.meta.get("val")
    return (
        target.op == "get_attr"
        and not node.users
        and len(target.users) == 1
        and isinstance(value, torch.Tensor)
        and value.dim() == 0
        and value.dtype == torch.int64
    )


class MovingRangeObserver(ActivationObserver):
    """Takes a moving average of the extremes of each batch: the range changes as the model does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() == 0:
            return x
        before = (self.low, self.high)
        self.low = self.high = 0.0
        super().forward(x)
        if before != (0.0, 0.0):
            old, new = before, (self.low, self.high)
            self.low, self.high = (a + NEW_PART * (b - a) for a, b in zip(old, new, strict=True))
        return x


class MovingKnownRangeObserver(KnownRangeObserver):
    """A known range is what it is: what is seen of it at first may grow."""

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero_point = self.known
        return torch.tensor([scale]), torch.tensor([zero_point])


class CurrentPerChannelWeightObserver(PerChannelWeightObserver):
    """The extremes of the weights as they are now."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.reset_min_max_vals()
        return super().forward(x)


class CurrentTensorWeightObserver(TensorWeightObserver):
    """The extremes of the weights as they are now."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.reset_min_max_vals()
        return super().forward(x)


_IN_TRAINING: dict[type[Any], type[Any]] = {
    KnownRangeObserver: MovingKnownRangeObserver,
    PerChannelWeightObserver: CurrentPerChannelWeightObserver,
    TensorWeightObserver: CurrentTensorWeightObserver,
}


def in_training(spec: QuantizationSpecBase | None) -> QuantizationSpecBase | None:
    """The specification with an observer that rounds what it sees; one that shares another's as it
    is."""
    if not isinstance(spec, QuantizationSpec):
        return spec
    made: Any = spec.observer_or_fake_quant_ctr
    kind, options = made.p.func, made.p.keywords
    if spec.is_dynamic:
        kind, options = MovingAverageMinMaxObserver, {**options, "averaging_constant": 1.0}
    else:
        kind = _IN_TRAINING.get(kind, MovingRangeObserver)
    if spec.ch_axis is not None:
        options = {**options, "ch_axis": spec.ch_axis}
    observer = FakeQuantize.with_args(observer=kind.with_args(**options))
    return replace(spec, observer_or_fake_quant_ctr=observer)

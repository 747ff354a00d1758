"""What gives a weight its int8 parameters, from its extremes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.dynamic_recurrence import DYNAMIC
from penstock.compiler.fx.edit import call, get_attribute
from penstock.compiler.quantize.pt2e import (
    MinMaxObserver,
    PerChannelMinMaxObserver,
    UniformQuantizationObserverBase,
)
from penstock.errors import QuantizationError

#: A quantized bias leaves this much room below int32's limit for the sum of products.
LARGEST_BIAS = 2.0**30


def not_to_be_trained(weight: torch.Tensor) -> torch.Tensor:
    """``weight``, for a graph that is calibrated: a gradient that comes back through it is a
    :class:`QuantizationError`, as nothing has been rounded."""
    if not (weight.requires_grad and torch.is_grad_enabled()):
        return weight
    read = weight.view_as(weight)
    read.register_hook(_refuse_gradient)
    return read


def _refuse_gradient(gradient: torch.Tensor) -> None:
    raise QuantizationError(
        "a model that was prepared for calibration rounds nothing, so training it does not prepare "
        "it for int8; give XNNPACKQuantizer(..., is_qat=True) to prepare_qat_pt2e"
    )


class _BiasGuard:
    """Keeps a weight's scale large enough for the bias that is measured in it.

    XNNPACK adds the bias as int32 in units of (activation scale x weight scale). A channel with
    tiny weights and a bias could overflow that; its weights then get a larger scale than their
    range asks for, which costs nothing beside the bias.
    """

    def __init__(self) -> None:
        self.users: list[tuple[torch.Tensor, Any]] = []

    def watch(self, bias: torch.Tensor, activation: Any) -> None:
        self.users.append((bias, activation))

    def apply(self, scale: torch.Tensor) -> torch.Tensor:
        for bias, activation in self.users:
            activation_scale = float(activation.calculate_qparams()[0])
            least = bias.detach().abs().to(scale) / (LARGEST_BIAS * activation_scale)
            # The groups of a transposed convolution share the scales of their channels.
            scale = torch.maximum(scale, least.view(-1, scale.numel()).amax(0).view_as(scale))
        return scale


class _Weight(UniformQuantizationObserverBase):  # type: ignore[misc]
    """What an observer of weights does beside watching their extremes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.guard = _BiasGuard()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        return not_to_be_trained(x)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero_point = super().calculate_qparams()
        return self.guard.apply(scale), zero_point


class PerChannelWeightObserver(_Weight, PerChannelMinMaxObserver):  # type: ignore[misc]
    """Symmetric parameters for each output channel of a weight, from its extremes. (torchao passes
    the channel axis to observers with "PerChannel" in their name.)"""


class RecurrentWeightObserver(PerChannelWeightObserver):
    """Of recurrent layers and cells, which become those that quantize their state as they run."""

    def convert(self, module: GraphModule, node: Node) -> None:
        """Puts the integers and their dequantization in the place of ``node``, which observes a
        constant. (torchao's ``convert_pt2e`` calls it too.)"""
        source = node.args[0]
        assert isinstance(source, Node)
        value, recurrent = attribute(module, str(source.target)).detach(), list(node.users)
        self(value)  # a dynamic scheme needs no data: the prepared graph may not have been run
        scale, zero_point = self.calculate_qparams()
        limits = (self.quant_min, self.quant_max, self.dtype)
        integers = torch.ops.quantized_decomposed.quantize_per_channel(
            value, scale, zero_point, 0, *limits
        )
        replace_by_integers(
            module, node, {"int8": integers, "scale": scale, "zero_point": zero_point},
            torch.ops.quantized_decomposed.dequantize_per_channel.default, 0, *limits,
        )  # fmt: skip
        for reader in recurrent:
            reader.target = DYNAMIC.get(reader.target, reader.target)


def replace_by_integers(
    module: GraphModule,
    node: Node,
    tensors: Mapping[str, torch.Tensor],
    dequantize: Any,
    *arguments: Any,
) -> None:
    """Puts ``dequantize`` of new constants, named by their kind, and of ``arguments`` in the place
    of ``node``, which observes a constant: each reader gets its own."""
    source = node.args[0]
    assert isinstance(source, Node)
    constants = [
        get_attribute(module, node, tensor, f"{source.name}_{kind}")
        for kind, tensor in tensors.items()
    ]
    for reader in list(node.users):
        real = call(module, reader, dequantize, *constants, *arguments)
        reader.replace_input_with(node, real)
    module.graph.erase_node(node)


class TensorWeightObserver(_Weight, MinMaxObserver):  # type: ignore[misc]
    """Symmetric parameters for all of a weight, from its extremes."""

"""Small models and helpers that the quantization tests share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import Operator, QuantizationRule
from penstock.compiler.quantize.convert import DEQUANTIZE, QUANTIZE
from penstock.compiler.quantize.flow import quantize
from penstock.compiler.quantize.interpreter import GraphInterpreter
from penstock.compiler.quantize.report import QuantizationReport
from penstock.compiler.rewrite import pipelines

aten = torch.ops.aten


def captured(model: nn.Module, args: tuple[Any, ...], **export: Any) -> GraphModule:
    """The graph as the compiler hands it to quantization."""
    program = torch.export.export(model.eval(), args, strict=False, **export)
    module = program.module(check_guards=False)
    pipelines.run(module)
    return module


def quantized(
    model: nn.Module,
    args: tuple[Any, ...],
    quantization: Any = "static",
    calibration: Iterable[Any] | None = None,
) -> tuple[GraphModule, QuantizationReport]:
    return quantize(captured(model, args), args, quantization, calibration)


def run(module: GraphModule, *values: Any) -> Any:
    result = GraphInterpreter(module).run_flat(values)
    return result[0] if isinstance(result, (tuple, list)) and len(result) == 1 else result


def sqnr_db(reference: torch.Tensor, result: torch.Tensor) -> float:
    reference, result = reference.detach().double(), result.detach().double()
    noise = float((reference - result).square().sum())
    return 10 * math.log10(float(reference.square().sum()) / noise) if noise else math.inf


def calls(module: GraphModule, target: Any) -> list[Node]:
    return [node for node in module.graph.nodes if node.target is target]


def parameters_before(node: Node, position: int = 0) -> tuple[Any, ...]:
    """(scale, zero point) of the dequantize that an argument of ``node`` comes from."""
    source = node.args[position]
    assert isinstance(source, Node) and source.target in DEQUANTIZE, source
    return source.args[1:3]


def parameters_after(node: Node) -> tuple[Any, ...]:
    """(scale, zero point) of the quantize that alone reads ``node``."""
    (reader,) = node.users
    assert reader.target in QUANTIZE, reader
    return reader.args[1:3]


def is_quantized(node: Node) -> bool:
    return any(isinstance(n, Node) and n.target in DEQUANTIZE for n in node.all_input_nodes)


def give_rule(monkeypatch: Any, target: Any, name: str, rule: QuantizationRule | None) -> None:
    """Lets the operator table answer to ``target`` with an entry for this test alone."""
    registry.entries()

    def lower(*unused: Any) -> Any:
        raise AssertionError("quantization lowers nothing")

    entry = Operator(name, (target,), lower, quantization=rule)
    monkeypatch.setitem(registry._BY_TARGET, target, entry)


class SmallNet(nn.Module):
    """Convolution, batch norm, relu6, a residual, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(True))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)
        norm = self.stem[1]
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        nn.init.uniform_(norm.running_mean, -1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.depthwise(x)
        return self.head(x.mean((2, 3)))


class Model(nn.Module):
    """A model of one function over named parts."""

    def __init__(self, function: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*self.parts.values(), *args)


def conv(inputs: int = 3, outputs: int = 4, size: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **options)

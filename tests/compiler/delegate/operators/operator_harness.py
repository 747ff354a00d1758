"""Lower one small function, run it, compare with eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import penstock
from penstock.compiler.capture.export import Captured, capture
from penstock.compiler.delegate.group import Delegate, lower_group
from penstock.compiler.delegate.partition import partition
from penstock.compiler.fx.layout import Dynamic
from penstock.compiler.rewrite import pipelines
from penstock.graph.dtypes import DataType
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

torch.set_num_threads(1)

ENGINE = XnnpackEngine()


class Function(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def as_module(model: torch.nn.Module | Callable[..., Any]) -> torch.nn.Module:
    return model.eval() if isinstance(model, torch.nn.Module) else Function(model)


def captured_graph(
    model: torch.nn.Module | Callable[..., Any], inputs: Sequence[torch.Tensor]
) -> Captured:
    """``model`` exported and rewritten, as :func:`penstock.lower` does."""
    with torch.no_grad():
        captured = capture(as_module(model), tuple(inputs))
        pipelines.run(captured.module)
    return captured


def one_piece(captured: Captured) -> Delegate:
    """The delegate of a graph that goes to XNNPACK as a whole; fails with the reasons if it does
    not, and with a NodeLoweringError if a lowering refuses."""
    dynamic = Dynamic(captured.bounds, captured.least)
    with torch.no_grad():
        split = partition(list(captured.module.graph.nodes), {})
        assert not split.undelegated, {n.name: str(r) for n, r in split.undelegated.items()}
        (group,) = split.groups
        return lower_group(captured.module, group, dynamic)


def run_graph(graph: XnnGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    executable = ENGINE.compile(graph, threads=Threads(1))
    shapes = executable.reshape([array.shape for array in inputs])
    outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
    executable.run(inputs, outputs)
    return outputs


def check(
    model: torch.nn.Module | Callable[..., Any],
    *inputs: torch.Tensor,
    tolerance: float = 1e-4,
) -> XnnGraph:
    """``model`` becomes one XNNPACK graph, which gives what eager PyTorch gives: within
    ``tolerance`` of each output's range. Returns the graph."""
    module = as_module(model)
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(module(*inputs))
    captured = captured_graph(module, inputs)
    lowered = one_piece(captured)
    by_name = dict(zip(captured.placeholders, inputs, strict=True))
    arrays = [by_name[node].detach().contiguous().numpy() for node in lowered.inputs]
    outputs = dict(zip(lowered.outputs, run_graph(lowered.graph, arrays), strict=True))
    (last,) = (node for node in captured.module.graph.nodes if node.op == "output")
    returned = torch.utils._pytree.tree_leaves(last.args[0])
    for position, (node, reference) in enumerate(zip(returned, expected, strict=True)):
        assert_close(outputs[node], reference.detach().numpy(), tolerance, f"output {position}")
    return lowered.graph


def assert_close(
    actual: np.ndarray, expected: np.ndarray, tolerance: float, name: str = "output"
) -> None:
    """Equal shapes, infinities and NaNs in the same places, the rest within ``tolerance`` of the
    expected values' range (at least of 1e-3)."""
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, eager {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=name)
    if not finite.any():
        return
    reference = expected[finite].astype(np.float64)
    scale = max(float(np.ptp(reference)), float(np.abs(reference).max()), 1e-3)
    error = np.abs(actual[finite] - reference)
    assert np.isfinite(error).all(), f"{name} is not finite where eager is"
    worst = float(error.max()) / scale
    assert worst <= tolerance, f"{name} is off by {worst:.2e} of its range"


def kinds(graph: XnnGraph) -> list[NodeKind]:
    return [node.kind for node in graph.nodes]


def reasons_outside(model: torch.nn.Module | Callable[..., Any], *inputs: torch.Tensor) -> set[str]:
    """Why what stays outside XNNPACK does."""
    with torch.no_grad():
        lowered = penstock.lower(as_module(model), tuple(inputs))
    return {str(reason) for _, reason in lowered.delegation.undelegated}


def check_quantized(
    model: torch.nn.Module | Callable[..., Any],
    *inputs: torch.Tensor,
    expected: NodeKind,
    least_sqnr: float = 25.0,
) -> XnnGraph:
    """``model`` with static int8 quantization runs ``expected`` nodes on int8 and stays within
    ``least_sqnr`` dB of eager. Returns the graph."""
    module = as_module(model)
    with torch.no_grad():
        reference = module(*inputs)
        captured = captured_graph(module, inputs)
        from penstock.compiler.progress import Silent
        from penstock.compiler.quantize import quantize

        captured.module, _ = quantize(
            captured.module, tuple(inputs), "static", [tuple(inputs)], Silent()
        )
    lowered = one_piece(captured)
    graph = lowered.graph
    values = {value.id: value for value in graph.values}
    found = [node for node in graph.nodes if node.kind is expected]
    assert found, f"no {expected.name} in {[kind.name for kind in kinds(graph)]}"
    on_integers = [
        node
        for node in found
        if {values[node.inputs[0]].dtype, values[node.outputs[0]].dtype} == {DataType.QINT8}
    ]
    assert on_integers, f"no {expected.name} runs on int8"
    by_name = dict(zip(captured.placeholders, inputs, strict=True))
    arrays = [by_name[node].detach().contiguous().numpy() for node in lowered.inputs]
    (actual,) = run_graph(graph, arrays)
    assert actual.shape == tuple(reference.shape)
    assert sqnr(actual, reference.numpy()) >= least_sqnr
    return graph


def sqnr(actual: np.ndarray, expected: np.ndarray) -> float:
    """The signal-to-noise ratio in dB."""
    noise = float(np.sum((actual.astype(np.float64) - expected) ** 2))
    signal = float(np.sum(expected.astype(np.float64) ** 2))
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))

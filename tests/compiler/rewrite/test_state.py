"""What a model changes besides its outputs, as its graph says it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.delegate.calls import insert_calls
from penstock.compiler.fx.marks import STORE
from penstock.compiler.rewrite import state
from penstock.compiler.rewrite.pipelines import run
from penstock.errors import ExportError


def targets(module: GraphModule) -> Counter[str]:
    return Counter(str(node.target) for node in module.graph.nodes if node.op == "call_function")


def test_a_written_input_is_written_back_once_at_the_end() -> None:
    class Writer(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x.add_(y)
            z = x * 2
            x.mul_(y)
            return z

    module = capture(Writer(), (torch.ones(3), torch.ones(3))).module
    for _ in range(2):
        run(module)
        assert targets(module)["penstock.write_back.default"] == 1
    state.apply(module)
    *_, store, output = module.graph.nodes
    assert store.target is STORE and output.op == "output"
    assert targets(module)["aten.mul_.Tensor"] == 0


def test_activations_in_place_on_intermediate_values_write_nothing_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.ReLU6(inplace=True))
    module = capture(model, (torch.ones(1, 3, 5, 5),)).module
    run(module)
    assert targets(module)["penstock.write_back.default"] == 0


def test_buffers_that_share_memory_in_part() -> None:
    class Overlapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.zeros(4))
            self.register_buffer("part", self.whole[:2])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.whole.add_(x)
            return self.part * 2

    with pytest.raises(ExportError, match="writes to whole, whose memory part shares"):
        penstock.lower(Overlapping(), (torch.ones(4),))


def test_what_the_model_does_later_is_none_of_the_program_s() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x * self.count

    model, x = Counting(), torch.ones(1)
    lowered = penstock.lower(model, (x,))
    for _ in range(3):
        model(x)
    (first,) = penstock.load(lowered.to_bytes())(x)
    assert first == 1


def test_buffers_that_are_quantized_first() -> None:
    """Then what reads them stands before the model's inputs."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)
            self.register_buffer("hidden", torch.zeros(2, 4))
            self.register_buffer("last", torch.ones(2, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.tanh(self.linear(torch.cat([x, self.hidden], 1)))
            result = self.last + y
            self.hidden.copy_(y)
            self.last.copy_(x)
            return result

    torch.manual_seed(0)
    model, calls = Recurrent().eval(), torch.rand(3, 2, 4)
    calibration = [(x,) for x in calls]
    lowered = penstock.lower(model, (calls[0],), quantize="static", calibration=calibration)
    program = penstock.load(lowered.to_bytes())
    for x in calls:
        (found,) = program(x)
        torch.testing.assert_close(torch.tensor(found), model(x), atol=0.1, rtol=0.1)


def test_a_cycle_is_an_error() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    first = graph.call_function(torch.neg, (x,))
    second = graph.call_function(torch.neg, (first,))
    graph.output(second)
    first.args = (second,)
    with pytest.raises(RuntimeError, match="a cycle through"):
        insert_calls(GraphModule(nn.Module(), graph), [], [])


def test_a_buffer_that_keeps_what_it_holds_is_a_constant() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.linear.weight.div_(2**0)
            y: torch.Tensor = self.linear(x)
            x.add_(0)
            return y

    model = Scaled().eval()
    module = capture(model, (torch.ones(2, 3),)).module
    run(module)
    assert targets(module) == Counter({"aten.linear.default": 1})
    lowered = penstock.lower(model, (torch.ones(2, 3),))
    assert not lowered.delegation.undelegated

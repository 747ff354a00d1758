"""What the quantized graph looks like, and that it computes nearly what the float graph does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import (
    Model,
    SmallNet,
    aten,
    calls,
    captured,
    conv,
    is_quantized,
    parameters_after,
    quantized,
    run,
    sqnr_db,
)
from torch import nn
from torch.fx import GraphModule, Node

import penstock
from penstock.compiler.quantize.convert import DEQUANTIZE, QUANTIZE
from penstock.compiler.quantize.flow import quantize
from penstock.compiler.quantize.quantization import Quantization
from penstock.errors import QuantizationError

torch.manual_seed(0)
IMAGES = torch.randn(2, 3, 8, 8)


def assert_complete(module: GraphModule) -> None:
    """Every node has a true value and, if it computes, a place in the user's model."""
    module.graph.lint()
    for node in module.graph.nodes:
        if node.op == "output":
            continue
        value = node.meta["val"]
        if node.op == "call_function":
            assert "nn_module_stack" in node.meta, node
        if node.op == "get_attr":
            real = getattr(module, node.target) if "." not in node.target else None
            assert real is None or (real.shape, real.dtype) == (value.shape, value.dtype)
        if node.target in QUANTIZE:
            assert value.dtype == torch.int8 and value.shape == node.args[0].meta["val"].shape
        if node.target in DEQUANTIZE:
            assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("scheme", "least_db"),
    [("static_per_channel", 28), ("static_per_tensor", 26), ("dynamic_per_channel", 35)],
)
def test_close_to_float_and_complete(scheme: str, least_db: float) -> None:
    torch.manual_seed(1)
    model = SmallNet().eval()
    module, report = quantized(model, (IMAGES,), scheme)
    assert_complete(module)
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > least_db
    assert not any(node.op == "call_module" for node in module.graph.nodes)
    assert len(report.quantized) == (2 if scheme == "dynamic_per_channel" else 5)


def test_weights_are_int8_behind_one_dequantize() -> None:
    module, _ = quantized(SmallNet(), (IMAGES,))
    convolution, depthwise = calls(module, aten.conv2d.default)
    linear = calls(module, aten.linear.default)[0]
    for node, channels in ((convolution, 8), (depthwise, 8), (linear, 5)):
        weight = node.args[1]
        assert weight.target is torch.ops.quantized_decomposed.dequantize_per_channel.default
        data, scales, zero_points, axis, low, high, dtype = weight.args
        assert (axis, low, high, dtype) == (0, -127, 127, torch.int8)
        tensor = getattr(module, data.target)
        assert data.op == "get_attr" and tensor.dtype == torch.int8
        assert int(tensor.abs().amax()) == 127
        assert getattr(module, scales.target).shape == (channels,)
        assert not getattr(module, zero_points.target).any()
        assert node.args[2].op == "get_attr" and node.args[2].meta["val"].dtype == torch.float32
    floats = [p for p in module.state_dict().values() if p.dtype == torch.float32 and p.dim() > 1]
    assert not floats, "the float weights are still in the module"


def test_weights_per_tensor() -> None:
    module, _ = quantized(SmallNet(), (IMAGES,), "static_per_tensor")
    weight = calls(module, aten.linear.default)[0].args[1]
    assert weight.target is torch.ops.quantized_decomposed.dequantize_per_tensor.default
    assert isinstance(weight.args[1], float) and weight.args[2:5] == (0, -127, 127)


def test_transposed_convolution_has_its_channels_on_axis_1() -> None:
    model = Model(lambda t, x: t(x), t=nn.ConvTranspose2d(3, 6, 2, 2))
    module, _ = quantized(model, (IMAGES,))
    weight = calls(module, aten.conv_transpose2d.input)[0].args[1]
    assert weight.args[3] == 1 and getattr(module, weight.args[1].target).shape == (6,)
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 35


@pytest.mark.parametrize(
    ("clamp", "low", "high"),
    [(F.relu, 0.0, None), (F.relu6, 0.0, 6.0), (lambda x: x.clamp(-1.0, 0.5), -1.0, 0.5)],
)
def test_a_clamp_belongs_to_the_operator_before_it(
    clamp: Any, low: float, high: float | None
) -> None:
    """Nothing between the two; the parameters are those of the clamped range."""
    model = Model(lambda c, x: clamp(c(x)), c=conv())
    module, report = quantized(model, (IMAGES * 10,), Quantization(observer="minmax"))
    convolution = calls(module, aten.conv2d.default)[0]
    (activation,) = convolution.users
    assert activation.target not in QUANTIZE
    scale, zero_point = parameters_after(activation)
    largest = model(IMAGES * 10).max().item() if high is None else high
    assert scale * (127 - zero_point) == pytest.approx(largest, abs=scale / 2)
    assert scale * (-128 - zero_point) == pytest.approx(low, abs=scale / 2)
    assert [layer.node for layer in report.layers] == [activation.name]


def test_a_clamp_that_is_not_the_only_reader_stands_alone() -> None:
    model = Model(lambda c, d, x: d(F.relu(c(x)) + c(x)), c=conv(), d=conv(4, 2))
    module, _ = quantized(model, (IMAGES,))
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 30
    model = Model(lambda c, x: (lambda y: F.relu(y) * y)(c(x)), c=conv())
    module, _ = quantized(model, (IMAGES,))
    (quantize_node,) = calls(module, aten.conv2d.default)[0].users
    assert quantize_node.target in QUANTIZE and len(quantize_node.users) == 2


def test_numbers_and_constants_are_operands() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.last = conv(), nn.Conv2d(4, 3, 1)
            self.register_buffer("k", torch.randn(4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.c(x) * 0.5
            y = 2.0 * (y + self.k)
            return self.last(y - 1)

    model = Scaled()
    module, report = quantized(model, (IMAGES,))
    assert not report.floating
    (add,) = calls(module, aten.add.Tensor)
    constant = add.args[1].args[0]
    assert constant.op == "get_attr" and constant.meta["val"].dtype == torch.int8
    for multiply in calls(module, aten.mul.Tensor):
        assert all(isinstance(a, Node) and a.target in DEQUANTIZE for a in multiply.args)
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 35


def test_an_operand_used_twice() -> None:
    model = Model(lambda c, x: (lambda y: y + y)(c(x)), c=conv())
    module, _ = quantized(model, (IMAGES,))
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 35


def test_a_model_of_additions_alone() -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + y + x) + (x + y)

    module, report = quantized(Adds(), (IMAGES, 0.1 * IMAGES), "static_per_tensor")
    assert len(report.quantized) == 3  # the second x + y is the first one
    assert sqnr_db(Adds()(IMAGES, 0.1 * IMAGES), run(module, IMAGES, 0.1 * IMAGES)) > 38


@pytest.mark.parametrize(("scheme", "products"), [("static", 0), ("dynamic", 1)])
def test_layer_scales_are_in_the_weights(scheme: str, products: int) -> None:
    scale = nn.ParameterList([torch.tensor([1e-3, 1.0, 1e-3, 10.0])[:, None, None]])
    model = Model(lambda a, b, s, x: b(a(x) * s[0]), a=conv(3, 4), b=conv(4, 4), s=scale)
    module, _ = quantized(model, (IMAGES,), scheme)
    assert len(calls(module, aten.mul.Tensor)) == products
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 30


def test_integers_masks_and_ids() -> None:
    """A mask's -1e9 takes part in nothing that is quantized, even if calibration masks nothing."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
            x = self.embedding(ids)
            penalty = (1.0 - mask.float()) * -1e9
            scores = self.q(x) @ self.k(x).transpose(1, 2) + penalty[:, None, :]
            return torch.softmax(scores, -1) @ self.v(x), ids + 1, mask.sum(), mask > 0

    model = Attention().eval()
    ids, mask = torch.randint(0, 10, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    module, report = quantized(model, (ids, mask))
    assert {layer.operator for layer in report.quantized} >= {"linear"}
    assert_complete(module)
    mask = mask.clone()
    mask[:, 3:] = 0
    expected, found = model(ids, mask), run(module, ids, mask)
    changed = torch.cat([ids[:, :3], 9 - ids[:, 3:]], 1)
    assert torch.equal(found[0][:, :3], run(module, changed, mask)[0][:, :3])
    for reference, result in zip(expected[1:], found[1:], strict=True):
        assert torch.equal(reference, result)


def test_only_integers_is_nothing_to_quantize() -> None:
    class Integers(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    with pytest.raises(QuantizationError, match=r"nothing to quantize.*int64, not float32"):
        quantized(Integers(), (torch.ones(3, dtype=torch.int64),))


def test_a_weight_computed_at_run_time_stays_in_float() -> None:
    model = Model(lambda c, x, w: c(F.linear(x, w)), c=conv())
    module, report = quantized(model, (IMAGES, torch.randn(5, 8)))
    assert not is_quantized(calls(module, aten.linear.default)[0])
    assert [layer.reason for layer in report.floating] == [
        "its weight is computed at run time, int8 needs a constant one"
    ]


@pytest.mark.parametrize("scheme", ["static", "dynamic", "dynamic_4bit"])
def test_a_weight_of_one_row_stays_in_float(scheme: str) -> None:
    class OneRow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.row = nn.Linear(32, 32), nn.Parameter(torch.ones(32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(self.hidden(x), self.row)

    torch.manual_seed(0)
    model, x = OneRow().eval(), torch.randn(4, 32)
    lowered = penstock.lower(model, (x,), quantize=scheme, calibration=[(x,)])
    assert lowered.quantization is not None and len(lowered.quantization.quantized) == 1
    (found,) = penstock.load(lowered.to_bytes())(x.numpy())
    expected = model(x).detach().numpy()
    assert found.shape == (4,) and abs(found - expected).max() < 0.2 * abs(expected).max()


def test_a_tied_weight_is_quantized_once_and_stays_for_others() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.embedding(ids)
            weight = self.embedding.weight
            return F.linear(x, weight) + F.linear(2 * x, weight)

    model, ids = Tied(), torch.randint(0, 10, (2, 5))
    module, _ = quantized(model, (ids,), "dynamic")
    first, second = calls(module, aten.linear.default)
    assert first.args[1].args[0] is second.args[1].args[0]
    assert sqnr_db(model(ids), run(module, ids)) > 35


def test_dynamic_activations() -> None:
    model = Model(
        lambda q, k, c, x: F.relu(q(x)) + k(x) + c(x),
        q=nn.Linear(8, 8), k=nn.Linear(8, 8), c=conv(3, 3),
    )  # fmt: skip
    module, report = quantized(model, (IMAGES,), "dynamic", calibration=[])
    assert_complete(module)
    first, second = calls(module, aten.linear.default)
    assert first.args[0] is second.args[0], "one quantization of x serves both"
    assert first.args[0].target is torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
    assert calls(module, aten.conv2d.default)[0].args[0] is first.args[0]
    (chosen,) = calls(module, torch.ops.quantized_decomposed.choose_qparams.tensor)
    assert chosen.args[1:] == (-128, 127, 2.0**-12, torch.int8)
    other = torch.randn(2, 3, 8, 8) * 50
    assert sqnr_db(model(other), run(module, other)) > 35
    assert {layer.operator for layer in report.quantized} == {"linear", "convolution"}


def test_depthwise_convolutions_take_no_dynamic_activations() -> None:
    model = Model(lambda q, c, x: c(q(x)), q=conv(3, 6), c=conv(6, 6, groups=6))
    module, report = quantized(model, (IMAGES,), "dynamic", calibration=[])
    assert [layer.module for layer in report.quantized] == ["parts.q"]


def test_skip_and_overrides() -> None:
    options = Quantization(skip=("stem",), overrides={"head": "dynamic_per_channel"})
    module, report = quantized(SmallNet(), (IMAGES,), options)
    assert not is_quantized(calls(module, aten.conv2d.default)[0])
    head = calls(module, aten.linear.default)[0]
    assert head.args[0].target is torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
    assert {layer.reason for layer in report.floating} >= {"skip='stem' leaves it in float"}
    with pytest.raises(QuantizationError, match="nothing to quantize"):
        quantized(SmallNet(), (IMAGES,), Quantization(skip=("*",)))


def test_a_batch_norm_that_cannot_be_folded() -> None:
    """Its convolution is read by others too; they must see it without the batch norm."""

    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.b, self.d = conv(3, 8), nn.BatchNorm2d(8), conv(8, 8)
            nn.init.uniform_(self.b.running_mean, 2, 3)  # type: ignore[arg-type]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.c(x)
            return self.d(F.relu(self.b(y)) + y)

    model = Forked().eval()
    module, _ = quantized(model, (IMAGES,))
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 28


def test_dynamic_shapes_survive() -> None:
    model = SmallNet().eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    module = captured(model, (IMAGES,), dynamic_shapes=({0: batch},))
    module, _ = quantize(module, (IMAGES,), "static", [IMAGES, torch.randn(5, 3, 8, 8)])
    for node in module.graph.nodes:
        if node.target in QUANTIZE and node.args[0].op != "get_attr":
            assert isinstance(node.meta["val"].shape[0], torch.SymInt), node
    larger = torch.randn(7, 3, 8, 8)
    assert sqnr_db(model(larger), run(module, larger)) > 25


def test_a_model_that_computes_in_small_units() -> None:
    model = SmallNet().eval()
    with torch.no_grad():
        for parameter in (*model.depthwise.parameters(), *model.head.parameters()):
            parameter *= 1e-5
    module, _ = quantized(model, (IMAGES,))
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 25


def test_groups_of_a_transposed_convolution_with_a_bias() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2).eval()
    x = torch.randn(2, 4, 8, 8)
    module, _ = quantized(layer, (x,))
    assert sqnr_db(layer(x), run(module, x)) > 30

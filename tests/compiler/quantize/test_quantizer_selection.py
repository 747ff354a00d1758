"""What is quantized how, chosen by module, type or operator, as the stock quantizer does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import sqnr_db
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

import penstock
from penstock.compiler.quantize import Quantization, XNNPACKQuantizer
from penstock.errors import QuantizationError

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
STATIC = {"is_per_channel": True}
DYNAMIC = {"is_per_channel": True, "is_dynamic": True}
LINEAR, SEQUENTIAL = "torch.nn.modules.linear.Linear", "torch.nn.modules.container.Sequential"
CONV, ADD = "torch.ops.aten.conv2d.default", "torch.ops.aten.add.Tensor"

#: Methods of the quantizer, what they name, and the configuration.
SELECTIONS: dict[str, list[tuple[str, str | None, dict[str, Any] | None]]] = {
    "all": [("set_global", None, STATIC)],
    "linear layers": [("set_module_type", LINEAR, DYNAMIC)],
    "a type of modules around others": [("set_module_type", SEQUENTIAL, STATIC)],
    "a type in float": [("set_global", None, STATIC), ("set_module_type", SEQUENTIAL, None)],
    "a module": [("set_module_name", "body", STATIC)],
    "a layer": [("set_module_name", "body.1", STATIC), ("set_module_name", "head", DYNAMIC)],
    "a name before a type": [
        ("set_module_type", LINEAR, STATIC),
        ("set_module_name", "head", DYNAMIC),
    ],
    "an operator": [("set_operator_type", CONV, STATIC)],
    "a type before an operator": [
        ("set_operator_type", "torch.ops.aten.linear.default", STATIC),
        ("set_module_type", LINEAR, DYNAMIC),
    ],
    "an operator before all": [
        ("set_global", None, DYNAMIC),
        ("set_operator_type", CONV, STATIC),
    ],
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8, 8))
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        result: torch.Tensor = self.head(self.inner(y + self.body(y)))
        return result


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return torch.export.export(Net().eval(), (IMAGES,))


@pytest.fixture(scope="module")
def stock(
    program: torch.export.ExportedProgram, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    pytest.importorskip("executorch.backends.xnnpack")
    folder = tmp_path_factory.mktemp("selection")
    torch.export.save(program, folder / "net.pt2")
    job = {"model": str(folder / "net.pt2"), "selections": list(SELECTIONS.values())}
    torch.save(job, folder / "job.pt")
    script = Path(__file__).parent / "stock_selection.py"
    command = [sys.executable, str(script), str(folder / "job.pt"), str(folder / "result.pt")]
    subprocess.run(command, check=True, capture_output=True)
    return dict(zip(SELECTIONS, torch.load(folder / "result.pt"), strict=True))


def configuration(arguments: dict[str, Any] | None) -> QuantizationConfig | None:
    """As ``get_symmetric_quantization_config`` makes it, but for its observers."""
    if arguments is None:
        return None
    dynamic = arguments.get("is_dynamic", False)
    per_channel = arguments.get("is_per_channel", False)
    weights = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
    observer: Any = None
    activation = QuantizationSpec(
        torch.int8, observer, -128, 127, torch.per_tensor_affine, is_dynamic=dynamic
    )
    limits = arguments.get("weights", (-127, 127))
    weight = QuantizationSpec(torch.int8, observer, *limits, weights, ch_axis=0)
    return QuantizationConfig(activation, None if dynamic else activation, weight, None, False)


def key_of(key: str) -> Any:
    value: Any = torch
    for part in key.split(".")[1:]:
        value = getattr(value, part)
    return value


def chosen(selection: list[tuple[str, str | None, dict[str, Any] | None]]) -> XNNPACKQuantizer:
    quantizer = XNNPACKQuantizer().set_global(None)
    for method, key, arguments in selection:
        keys = [] if key is None else [key if method == "set_module_name" else key_of(key)]
        assert getattr(quantizer, method)(*keys, configuration(arguments)) is quantizer
    return quantizer


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_stock_quantizer_chooses_the_same(
    name: str, program: torch.export.ExportedProgram, stock: dict[str, dict[str, str]]
) -> None:
    quantizer = chosen(SELECTIONS[name])
    prepared = prepare_pt2e(program.module(), quantizer)
    prepared(IMAGES)
    ours = {
        decision.node.name: "dynamic" if decision.is_dynamic else "static"
        for decision in quantizer.plan.quantized
    }
    expected = stock[name]
    if any(method.startswith("set_module") for method, *_ in SELECTIONS[name]):
        # The stock quantizer asks its filter of a convolution's weight too, which is in no module:
        # chosen by modules, convolutions stay in float there.
        names = {node for node in ours if not node.startswith("conv") or node in expected}
        ours = {node: form for node, form in ours.items() if node in names}
    assert expected == ours
    assert ours
    answer = program.module()(IMAGES)
    assert sqnr_db(answer, convert_pt2e(prepared)(IMAGES)) > 25


def test_convolutions_are_chosen_by_modules_too(program: torch.export.ExportedProgram) -> None:
    for method, key in (("set_module_name", "body"), ("set_module_type", nn.Sequential)):
        quantizer = XNNPACKQuantizer().set_global(None)
        getattr(quantizer, method)(key, "static")
        prepare_pt2e(program.module(), quantizer)
        assert [d.node.name for d in quantizer.plan.quantized] == ["conv2d_1", "linear"]


def test_a_filter_leaves_nodes_in_float(program: torch.export.ExportedProgram) -> None:
    quantizer = XNNPACKQuantizer("dynamic").set_filter_function(lambda node: node.name != "linear")
    prepare_pt2e(program.module(), quantizer)
    names = [decision.node.name for decision in quantizer.plan.quantized]
    assert "linear" not in names
    assert "linear_1" in names


def test_names_that_fit_nothing_are_warned_of(program: torch.export.ExportedProgram) -> None:
    quantizer = XNNPACKQuantizer().set_module_name("bdoy", None).set_module_name("body", None)
    quantizer.set_module_type(nn.LSTM, None)
    with pytest.warns(UserWarning, match="fits no operator") as found:
        prepare_pt2e(program.module(), quantizer)
    mine = [str(one.message) for one in found if "fits no operator" in str(one.message)]
    assert ["'bdoy'" in mine[0], "'body'" in mine[0], "LSTM" in mine[1]] == [True, False, True]


def test_all_of_an_operators_overloads_are_named_by_their_packet() -> None:
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.add, None)
    assert quantizer.quantization.operators == {"add": None}
    assert quantizer.set_global("dynamic").quantization.scheme == "dynamic_per_channel"


@pytest.mark.parametrize(
    ("arguments", "scheme"),
    [
        ({"is_dynamic": True}, "dynamic_per_channel"),
        ({"is_dynamic": True, "is_per_channel": True, "weights": (-8, 7)}, "dynamic_4bit"),
    ],
)
def test_the_scheme_nearest_to_a_configuration(arguments: dict[str, Any], scheme: str) -> None:
    quantizer = XNNPACKQuantizer().set_global(configuration(arguments))
    assert quantizer.quantization.scheme == scheme


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("int3", "unknown quantization scheme 'int3'"),
        (
            configuration({"is_per_channel": True, "weights": (-8, 7)}),
            "activations int8 from -128 to 127 and weights int8 from -8 to 7; give int8 from",
        ),
        (
            QuantizationConfig(None, None, configuration(STATIC).weight, None, False),  # type: ignore[union-attr]
            "activations in float .* or one of static_per_tensor",
        ),
    ],
)
def test_a_configuration_that_no_scheme_is(config: object, message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        XNNPACKQuantizer().set_global(config)


def test_what_is_no_operator_and_no_type() -> None:
    with pytest.raises(QuantizationError, match=r"no operator for aten\.randn"):
        XNNPACKQuantizer().set_operator_type(torch.ops.aten.randn, "static")
    with pytest.raises(QuantizationError, match=r"is no operator; give one of torch\.ops\.aten"):
        XNNPACKQuantizer().set_operator_type(nn.functional.linear, "static")
    with pytest.raises(QuantizationError, match="module_types has 3"):
        XNNPACKQuantizer().set_module_type(3, "static")  # type: ignore[arg-type]


def test_types_choose_in_lower_too() -> None:
    options = Quantization(
        "dynamic_per_channel", module_types={nn.Linear: None, "Net": "dynamic_per_channel"}
    )
    report = penstock.lower(Net().eval(), (IMAGES,), quantize=options).quantization
    assert report is not None
    assert {layer.operator for layer in report.quantized} == {"convolution"}
    linear = next(layer for layer in report.floating if layer.operator == "linear")
    assert "its module's type" in str(linear.reason)

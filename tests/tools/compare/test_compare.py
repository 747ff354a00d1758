"""Programs beside each other and beside eager PyTorch."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock
from penstock.cli.eager_side import EagerSide
from penstock.cli.sources import Source
from penstock.compiler.quantize import Quantization
from penstock.tools.compare import CompareReport, ProgramSide, Side, compare
from penstock.tools.samples import random_inputs

STOCK = Path(__file__).parents[2] / "formats" / "stock"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
        )
        self.left = torch.nn.Conv2d(8, 8, 1)
        self.right = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.nn.functional.silu(self.left(x)) + self.right(x)
        return torch.softmax(self.head(x.mean((2, 3))), -1)


def net(seed: int = 0) -> tuple[Net, torch.Tensor]:
    torch.manual_seed(seed)
    return Net().eval(), torch.randn(1, 3, 10, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def side(
    folder: Path, name: str, model: Any, x: torch.Tensor, engine: str = "auto", **how: Any
) -> ProgramSide:
    penstock.lower(model, (x,), **how).save(folder / name)
    return ProgramSide(folder / name, label=name, engine=engine, threads=1)


def eager(model: torch.nn.Module, x: torch.Tensor) -> EagerSide:
    return EagerSide(Source("net", model, (x,), {}, "static_per_channel"))


def run(a: Side, b: Side, *inputs: torch.Tensor, threshold: float = 60.0) -> CompareReport:
    return compare(a, b, [[x.numpy()] for x in inputs], inputs="samples", threshold_db=threshold)


@pytest.mark.parametrize("delegate", [True, False])
@pytest.mark.parametrize("engine", ["auto", "xnnpack"])
def test_every_value_is_eagers(folder: Path, delegate: bool, engine: str) -> None:
    model, x = net()
    report = run(
        eager(model, x), side(folder, "a.pte", model, x, engine, delegate=delegate), x, x + 1
    )
    assert report.agree and report.first is None and report.samples == 2
    names = [layer.name for layer in report.layers]
    for name in ("left conv", "right conv", "head linear", "softmax"):
        assert any(name in found for found in names), names
    assert min(layer.sqnr_db for layer in report.layers) > 90
    assert not [name for name in report.unmatched[1] if "conv2d" in name or "linear" in name]


def test_where_they_part(folder: Path) -> None:
    model, x = net()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.right.weight[0] *= 1.5
    a, b = side(folder, "a.pte", model, x), side(folder, "b.pte", other, x)
    report = run(a, b, x)
    assert report.first is not None and not report.agree
    assert report.layers[report.first].name == "right conv2d"
    agreeing = {layer.name for layer in report.layers if layer.sqnr_db > 100}
    assert {"stem.0 conv2d", "left conv2d", "silu"} <= agreeing
    # The eager model is as good a judge.
    beside_eager = run(eager(model, x), b, x)
    assert beside_eager.first is not None
    assert beside_eager.layers[beside_eager.first].name == "right conv2d"


def test_int8_beside_float(folder: Path) -> None:
    model, x = net()
    quantized = side(
        folder,
        "q.pte",
        model,
        x,
        quantize=Quantization(scheme="static_per_channel"),
        calibration=[(x,)],
    )
    report = run(side(folder, "a.pte", model, x), quantized, x, threshold=15)
    assert quantized.quantized and report.agree
    by_name = {layer.name: layer for layer in report.layers}
    stem = by_name["stem.0 conv2d"]
    assert stem.dtypes == ("fp32", "qint8") and 20 < stem.sqnr_db < 60
    assert stem.largest < 0.1 * stem.extent
    left = by_name["left conv2d"] if "left conv2d" in by_name else by_name["silu"]
    assert left.loss_db is not None and left.loss_db == pytest.approx(stem.sqnr_db - left.sqnr_db)
    assert not any("quantized_decomposed" in name for side in report.unmatched for name in side)


def test_values_are_the_programs_own(folder: Path) -> None:
    """An operator whose value is the program's output is seen as the program gives it."""
    model, x = net()
    a = side(folder, "a.pte", model, x)
    outputs, taps = a.run([x.numpy()])
    (expected,) = penstock.load(folder / "a.pte")(x.numpy())
    assert np.array_equal(outputs[0], expected)
    assert np.array_equal(taps[-1].array.reshape(expected.shape), expected)


def test_without_a_source_map(folder: Path) -> None:
    model, x = net()
    a = side(folder, "a.pte", model, x, sources=False)
    b = side(folder, "b.pte", model, x)
    report = run(a, b, x)
    assert report.agree and len(report.layers) > 5
    assert all(layer.sqnr_db == math.inf for layer in report.layers)


@pytest.mark.parametrize("name", ["partly", "image_q8"])
def test_what_a_value_is_computed_from_is_known_across_instructions(name: str) -> None:
    """In files of the stock compiler: kernels beside delegates, no source map."""
    program = ProgramSide(STOCK / f"{name}.pte", label=name, threads=1)
    inputs = random_inputs(program.program)
    _, taps = program.run(inputs)
    reached = {i for i, tap in enumerate(taps) if not tap.reads}
    assert len(reached) <= sum(isinstance(value, np.ndarray) for value in inputs)
    for position, tap in enumerate(taps):
        assert all(source < position for source in tap.reads)
    report = compare(program, program, [inputs], inputs="random", threshold_db=60)
    assert len(report.layers) == len(taps) and not report.left_out
    assert all(layer.sqnr_db == math.inf for layer in report.layers)


def test_two_engines(folder: Path) -> None:
    model, x = net()
    a, b = side(folder, "a.pte", model, x, "native"), side(folder, "a.pte", model, x, "xnnpack")
    report = run(a, b, x)
    assert report.agree and report.first is None and len(report.layers) > 5


def test_outputs_of_other_shapes(folder: Path) -> None:
    model, x = net()
    a = side(folder, "a.pte", model, x)
    b = side(folder, "b.pte", torch.nn.Flatten(), x)
    with pytest.raises(penstock.InputError, match="not of one model"):
        run(a, b, x)
    with pytest.raises(penstock.InputError, match="no inputs"):
        run(a, a)


class Block(torch.nn.Module):
    """Attention and MLP before which there are norms, whose residual stream is centred."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = (torch.nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 64), torch.nn.Linear(64, width)
        for norm in (self.first, self.second):
            torch.nn.init.normal_(norm.weight, 1.0, 0.3)
            torch.nn.init.normal_(norm.bias, 0.0, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.first(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        seen = torch.nn.functional.scaled_dot_product_attention(*heads.unbind(0))
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(torch.nn.functional.gelu(self.up(self.second(x))))


class Transformer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(12, 32)
        self.blocks = torch.nn.Sequential(Block(), Block())
        self.norm, self.head = torch.nn.LayerNorm(32), torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.norm(self.blocks(self.embed(x)))))


def transformer() -> tuple[Transformer, torch.Tensor]:
    torch.manual_seed(0)
    return Transformer().eval(), torch.randn(1, 40, 12)


HOW: list[dict[str, Any]] = [{}, {"quantize": Quantization(scheme="static_per_channel")}]


@pytest.mark.parametrize("how", HOW, ids=["fp32", "int8"])
@pytest.mark.parametrize("other", ["eager", "plain"])
def test_rewritten_values_are_not_taken_for_errors(folder: Path, how: Any, other: str) -> None:
    """The compiler centres the residual stream and moves the norms' scales and offsets; what is
    compared is what means the same. ``plain`` has neither passes nor a source map."""
    model, x = transformer()
    calibration = [(x + 0.1 * n,) for n in range(4)]
    b = side(folder, "b.pte", model, x, **how, **({"calibration": calibration} if how else {}))
    a = (
        eager(model, x)
        if other == "eager"
        else side(folder, "a.pte", model, x, delegate=False, sources=False)
    )
    threshold = 22.0 if how else 90.0
    report = run(a, b, x, x + 0.3, threshold=threshold)
    assert report.agree and report.first is None, [(i.name, i.sqnr_db) for i in report.layers]
    names = {layer.name for layer in report.layers}
    for name in ("embed linear", "blocks.0.out linear", "blocks.1.down linear", "head linear"):
        assert name in names, names
    if not how:
        notes = {layer.name: layer.note for layer in report.layers}
        assert notes["embed linear"] == "compared less the mean over 32"
    assert len(report.left_out) <= len(report.layers) / 4


NAMES = ["embed", "blocks.0.qkv", "blocks.0.up", "blocks.0.down", "blocks.1.out"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", ["eager", "plain"])
def test_a_wrong_layer_is_found_in_spite_of_rewrites(folder: Path, name: str, other: str) -> None:
    model, x = transformer()
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.get_submodule(name).get_parameter("weight")[7] *= 1.7
    a = (
        eager(model, x)
        if other == "eager"
        else side(folder, "a.pte", model, x, delegate=False, sources=False)
    )
    report = run(a, side(folder, "b.pte", wrong, x), x, threshold=90)
    assert not report.agree and report.first is not None
    # Of eager's values none is the projection's, which is in pieces here.
    seen = "blocks.0 scaled_dot_product_attention" if name.endswith("qkv") else f"{name} linear"
    assert report.layers[report.first].name == seen


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: torch.exp(x), lambda x: x * 3, (x,)) + 1


def test_branches(folder: Path) -> None:
    x = torch.ones(3)
    report = run(side(folder, "a.pte", Doubling(), x), side(folder, "b.pte", Doubling(), x), x, -x)
    assert report.agree and report.samples == 2
    assert report.as_dict()["agree"] is True
    assert "a.pte and b.pte agree" in report._repr_html_()

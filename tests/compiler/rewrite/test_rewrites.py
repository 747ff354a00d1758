"""Rewrites by themselves: the graph they leave, and that it gives what eager gives."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from rewrites_harness import apply, rewritten
from torch import nn
from torch.fx import GraphModule

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.rewrite import (
    additive_masks,
    constant_products,
    fold_constants,
    functionalize,
    merge_rolls,
    pipelines,
    promote_operands,
    remove_no_ops,
    widen_floats,
)
from penstock.compiler.rewrite.pipelines import run
from penstock.errors import ExportError


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_writes_in_place_become_functional() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y.add_(1)
            z = y + 1
            y.relu_()
            return y + z

    _, targets = rewritten(InPlace(), (torch.randn(5),), functionalize.apply)
    assert "aten.add_.Tensor" not in targets
    assert "aten.relu_.default" not in targets


def test_a_write_through_a_view_is_followed() -> None:
    class Painted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, 1:3] += 1
            return y

    rewritten(Painted(), (torch.randn(3, 5),), functionalize.apply)


def test_a_mask_painted_region_by_region_is_one_constant() -> None:
    class Painted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = x.new_zeros((4, 4))
            number = 0
            for rows in (slice(0, 2), slice(2, 4)):
                for columns in (slice(0, 3), slice(3, 4)):
                    mask[rows, columns] = number
                    number += 1
            early = mask * 1
            mask += 10
            return x + mask.masked_fill(mask > 11, -5.0) + early

    _, targets = rewritten(Painted(), (torch.randn(4, 4),), fold_constants.apply)
    assert targets == Counter({"aten.add.Tensor": 2})


def test_regions_of_a_mask_that_are_empty_are_not_written_to() -> None:
    class Painted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = x.new_zeros((4, 4))
            for number, rows in enumerate((slice(0, -1), slice(-1, 0), slice(-1, None))):
                mask[rows, 1:] = number
            # Capture has to have such views followed by torch, or folded.
            return x + mask.view(2, 2, 4).permute(0, 2, 1).reshape(4, 4)

    lowered = penstock.lower(Painted(), (torch.randn(4, 4),))
    assert not lowered.delegation.undelegated
    assert "copy_" not in lowered.graph


def test_positions_and_tables_are_folded() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table(torch.arange(x.shape[1])) * math.sqrt(4)

    _, targets = rewritten(Positions(), (torch.randn(2, 5, 4),), fold_constants.apply)
    assert targets == Counter({"aten.add.Tensor": 1})


def test_state_is_read_once_however_often_the_rewrites_run() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x)
            return self.total * 2

    module = capture(Counter(), (torch.randn(3),)).module
    for _ in range(3):
        run(module)
    targets = [str(node.target) for node in module.graph.nodes]
    assert targets.count("penstock.state.default") == 1


def test_state_is_not_folded() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x * self.count

    module = capture(Counting().eval(), (torch.randn(3),)).module
    apply(module, functionalize.apply, fold_constants.apply)
    targets = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    assert "aten.copy_.default" in targets
    assert "aten.add.Tensor" in targets


def test_what_changes_nothing_vanishes() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.dropout(x).contiguous().clone().to(torch.float32)
            return (x * 1 + 0).view(x.shape).expand(x.shape).exp()

    _, targets = rewritten(Idle(), (torch.randn(3, 4),), remove_no_ops.apply)
    assert targets == Counter({"aten.exp.default": 1})


def test_what_changes_the_type_stays() -> None:
    class Cast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.nan_to_num() * 1.0).to(torch.float64)  # of integers, that is nothing

    _, targets = rewritten(Cast(), (torch.arange(4),), remove_no_ops.apply)
    assert sum(targets.values()) == 2


@pytest.mark.parametrize("value", [-math.inf, -1e4, 3.0])
def test_boolean_masks_become_numbers(value: float) -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            mask = torch.arange(6) >= lengths[:, None]
            first = x.masked_fill(mask, value)
            return torch.softmax(first, -1) + torch.softmax(x.exp().masked_fill(mask, value), -1)

    module, targets = rewritten(
        Masked(), (torch.randn(2, 6), torch.tensor([3, 6])), additive_masks.apply
    )
    assert "aten.masked_fill.Scalar" not in targets
    # A bound from above and one from below, of which an infinite value needs one.
    assert targets["aten.where.self"] == (1 if math.isinf(value) else 2)
    assert isinstance(module, GraphModule)


@pytest.mark.parametrize("values", [(-math.inf, 0.0), (math.inf, -2.0), (-math.inf, math.inf)])
def test_masks_replace_infinities_too(values: tuple[float, float]) -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = x.masked_fill(mask, values[0])
            return hidden.max(-1).values + hidden.relu().masked_fill(mask, values[1]).sum(-1)

    mask = torch.tensor([[True, False, True], [False, False, False]])
    _, targets = rewritten(Twice(), (torch.randn(2, 3), mask), additive_masks.apply)
    assert "aten.masked_fill.Scalar" not in targets


def test_masked_scores_over_a_computed_constant_are_numbers() -> None:
    class Scores(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            scale = torch.sqrt(torch.tensor(x.size(-1), dtype=torch.float) * 3)
            return (x @ x.transpose(1, 2) / scale).masked_fill(mask, -1e30).softmax(-1)

    mask = torch.tensor([[True, False, True], [False, False, False]])[:, None]
    steps = [step.apply for step in pipelines.CANONICALIZE]
    _, targets = rewritten(Scores(), (torch.randn(2, 3, 4), mask), *steps)
    assert "aten.masked_fill.Scalar" not in targets


def test_what_is_written_over_leaves_no_copy() -> None:
    class Painted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, 1:3] = x[:, :1]
            y[0] = torch.arange(5)
            return y

    _, targets = rewritten(Painted(), (torch.randn(4, 5),), remove_no_ops.apply)
    assert "aten.copy.default" not in targets


def test_a_boolean_attention_mask_becomes_additive() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            mask = keep[:, None, None, :].expand(-1, 1, x.shape[2], -1)
            y = nn.functional.scaled_dot_product_attention(x, x, x, mask)
            return nn.functional.scaled_dot_product_attention(y, x, x, mask)

    keep = torch.tensor([[True, True, False, True, False]])
    _, targets = rewritten(Attention(), (torch.randn(1, 2, 5, 4), keep), additive_masks.apply)
    assert targets["aten.where.self"] == 1


def test_what_is_written_at_run_time_is_no_constant() -> None:
    """Also where a view of it alone is written to."""

    class Collected(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(4, 3)
            out[3] = 2.0
            state = x[0]
            for i in range(x.shape[0]):
                state = state * 0.5 + x[i]
                out[i] = state
            return out

    module, targets = rewritten(Collected(), (torch.randn(3, 3),), fold_constants.apply)
    assert "aten.copy_.default" not in targets
    assert capture(Collected(), (torch.randn(3, 3),)).module is not module


def test_a_constant_is_viewed_whatever_its_strides() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            table = torch.arange(6.0).view(2, 3).t().contiguous().view(6)
            return x + table

    _, targets = rewritten(Turned(), (torch.randn(6),), remove_no_ops.apply, fold_constants.apply)
    assert set(targets) == {"aten.add.Tensor"}


def test_shapes_and_types_are_read_at_compile_time() -> None:
    class Alike(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            y = x.exp()
            return y * mask.unsqueeze(-1).expand_as(y).type_as(y) + mask.view_as(y[:, 0]).to(y)[0]

    module, targets = rewritten(Alike(), (torch.randn(4, 4), torch.arange(4)), remove_no_ops.apply)
    assert not {"aten.expand_as.default", "aten.type_as.default", "aten.view_as.default"} & set(
        targets
    )
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.to.dtype:
            assert node.args[0].meta["val"].dtype == torch.int64


def test_integers_beside_floats_are_cast_by_themselves() -> None:
    class Mixed(nn.Module):
        def forward(
            self, x: torch.Tensor, counts: torch.Tensor, keep: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            masked = x * keep + counts * keep
            mean = masked.sum(-1, keepdim=True) / counts.clamp(min=1)
            both = keep * (x > 0)
            return mean, torch.where(both, x, counts), x > counts, counts - x, counts * counts

    inputs = (torch.randn(2, 3), torch.tensor([[1], [3]]), torch.tensor([[True, False, True]] * 2))
    module, targets = rewritten(Mixed(), inputs, promote_operands.apply)
    assert targets["aten.logical_and.default"] == 1
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.div.Tensor:
            assert {source.meta["val"].dtype for source in node.all_input_nodes} == {torch.float32}
    assert sum(node.target is torch.ops.aten.to.dtype for node in module.graph.nodes) == 4


class Regions(nn.Module):
    def __init__(self, enabled: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.enabled = enabled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=self.enabled):
            y = self.linear(x).relu()
            with torch.no_grad():
                table = torch.arange(3.0) * 2
                first, second = (y * table).chunk(2)
        with torch.autocast("cpu", enabled=False):
            return torch.cat([first, second + 1]) @ torch.ones(3, 3)


def test_regions_become_part_of_the_graph() -> None:
    module, targets = rewritten(Regions(), (torch.randn(4, 3),))
    assert all(target.startswith("aten.") or "getitem" in target for target in targets)
    assert not [name for name, _ in module.named_modules() if "submod" in name]


def test_a_region_of_another_type_is_refused() -> None:
    with pytest.raises(ExportError, match="autocast"):
        capture(Regions(enabled=True).eval(), (torch.randn(4, 3),))


class Narrow(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, dtype=dtype)
        self.norm = nn.BatchNorm2d(4, dtype=dtype)
        self.linear = nn.Linear(4, 2, dtype=dtype)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.norm(self.conv(x)).relu()
        pooled = y.float().mean((2, 3)).to(x.dtype) + torch.ones(4, dtype=x.dtype)
        return self.linear(pooled), pooled.float() * scale, y.split(2, 1)[0], x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_floats_become_32_bit(dtype: torch.dtype) -> None:
    model = Narrow(dtype).eval()
    inputs = (torch.randn(1, 3, 6, 6, dtype=dtype), torch.tensor(2.0))
    module = capture(model, inputs).module
    run(module)
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and node.target is not torch.ops.aten.to.dtype:
            assert isinstance(value, (tuple, list)) or value.dtype == torch.float32
    module.recompile()
    for actual, expected in zip(module(*inputs), model(*inputs), strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)


def test_the_bits_of_16_bit_floats_are_left_alone() -> None:
    class Bits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).view(torch.int16)

    rewritten(Bits(), (torch.randn(4, dtype=torch.float16),), widen_floats.apply)


def test_products_with_constants_become_linear() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 5))
            self.bias = nn.Parameter(torch.randn(5))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = x[0]
            return (
                torch.addmm(self.bias, y, self.weight),
                torch.addmm(self.bias, y, self.weight, alpha=2),
                torch.addmm(self.bias[:1], y, self.weight),
                y.mm(self.weight),
                x @ self.weight,
                x[0, 0] @ self.weight,
                self.weight.t() @ y.t(),
            )

    _, targets = rewritten(
        Products(), (torch.randn(2, 3, 4),), constant_products.apply, remove_no_ops.apply
    )
    assert targets["aten.linear.default"] == 4
    assert targets["aten.addmm.default"] == 2


def test_rolls_in_a_row_are_one() -> None:
    class Rolls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.roll(torch.roll(torch.roll(x, 1, 1), -2, 2), (1, 3), (0, 1))
            return y * y.roll(2)

    module, targets = rewritten(Rolls(), (torch.randn(3, 4, 5),), merge_rolls.apply)
    assert targets["aten.roll.default"] == 2
    first = next(n for n in module.graph.nodes if str(n.target) == "aten.roll.default")
    assert first.args[1:] == ([1, -2, 1, 3], [1, 2, 0, 1])


def test_a_roll_that_is_read_itself_stays() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.roll(1, 1)
            return y + y.roll(2, 2)

    _, targets = rewritten(Both(), (torch.randn(3, 4, 5),), merge_rolls.apply)
    assert targets["aten.roll.default"] == 2

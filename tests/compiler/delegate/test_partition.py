"""Groups of nodes: as large as can be, and never in a cycle with what is outside."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from torch.fx import GraphModule, Node

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.delegate.group import GroupLoweringError, lower_group
from penstock.compiler.delegate.partition import (
    POSITIONS,
    Partition,
    Reason,
    is_operator,
    partition,
)
from penstock.compiler.fx.layout import Dynamic
from penstock.compiler.rewrite import pipelines


def split(function: torch.nn.Module, *inputs: torch.Tensor) -> tuple[GraphModule, Partition]:
    module = capture(function, inputs).module
    pipelines.run(module)
    return module, partition(list(module.graph.nodes), {})


class Diamond(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x + 1
        ids = torch.argsort(a)  # XNNPACK cannot sort
        return (a * 2) + ids.float() * a


def test_a_way_round_through_the_outside_splits() -> None:
    _, result = split(Diamond(), torch.randn(4, 4))
    assert len(result.groups) == 2
    names = {str(node.target) for node in result.undelegated}
    assert "aten.argsort.default" in names or "aten.sort.default" in names
    assert all(isinstance(reason, Reason) and reason.text for reason in result.undelegated.values())


def test_independent_branches_share_a_group() -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.exp() + 1, y.exp() * 2

    _, result = split(Branches(), torch.randn(3), torch.randn(5))
    assert len(result.groups) == 1
    assert not result.undelegated


def test_what_is_made_outside_from_inputs_alone_splits_nothing() -> None:
    class Masked(torch.nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            mask = torch.where(torch.arange(4) < lengths[:, None], 0.0, -1e4)
            return torch.softmax(x.exp() + 1 + mask, -1)

    module, result = split(Masked(), torch.randn(3, 4), torch.tensor([1, 2, 4]))
    assert len(result.groups) == 1
    assert "aten.lt.Tensor" in {str(node.target) for node in result.undelegated}
    assert any(node.target is torch.ops.aten.exp.default for node in result.groups[0])


class Bucketed(torch.nn.Module):
    """Relative positions as T5 has them, and OPT's, which are counted along a mask."""

    def __init__(self, shown: bool = False) -> None:
        super().__init__()
        self.bias = torch.nn.Embedding(8, 4)
        self.linear = torch.nn.Linear(4, 4)
        self.shown = shown

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x)
        logarithms = torch.log(ids.float() + 1) / 0.7
        counts = torch.cumsum((ids > 0).float(), 1) - 1
        bias = self.bias(logarithms.long().clamp(0, 7)) + self.bias(counts.long().clamp(0, 7))
        result = torch.softmax(y + bias, -1) * 2
        return (result, logarithms) if self.shown else (result,)


def test_positions_are_computed_where_they_are_read() -> None:
    module, result = split(Bucketed(), torch.randn(2, 5, 4), torch.arange(10).view(2, 5))
    assert len(result.groups) == 1
    targets = Counter(
        str(n.target) for n, reason in result.undelegated.items() if reason.kind == POSITIONS
    )
    assert targets["aten.log.default"] == targets["aten.cumsum.default"] == 1
    assert {n.name for n in result.groups[0]} >= {"linear", "softmax"}
    model, inputs = Bucketed().eval(), (torch.randn(2, 5, 4), torch.arange(10).view(2, 5))
    (found,) = penstock.load(penstock.lower(model, inputs).to_bytes())(*inputs)
    torch.testing.assert_close(torch.from_numpy(found), model(*inputs)[0])


class Painted(torch.nn.Module):
    """A mask of two windows, painted region by region; and of what an input hides."""

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        size = x.shape[1]
        regions = torch.zeros(1, size, 1)
        for number, part in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
            regions[:, part] = number
        hidden = (regions - regions.transpose(1, 2)).masked_fill(regions == 1, -9.0)
        causal = torch.ones(size, size, dtype=torch.bool).tril()
        scores = (x @ x.transpose(1, 2)).tanh() + hidden
        shown = causal & (seen[:, None, :] > 0)
        return scores.masked_fill(~shown, -1e9).softmax(-1) @ (x * 2)


def test_what_is_made_of_sizes_alone_or_moved_for_kernels_cuts_nothing() -> None:
    sizes = {1: torch.export.Dim("size", min=6, max=16)}
    model, inputs = Painted(), (torch.randn(2, 8, 3), torch.randn(2, 8))
    lowered = penstock.lower(model, inputs, dynamic_shapes=(sizes, sizes))
    assert len(lowered.delegation.subgraphs) == 1
    program = penstock.load(lowered.to_bytes())
    for size in (8, 6, 16):
        inputs = torch.randn(2, size, 3), torch.rand(2, size) + 0.1
        (found,) = program(*inputs)
        torch.testing.assert_close(torch.from_numpy(found), model(*inputs), rtol=1e-4, atol=1e-5)


def test_positions_that_are_shown_are_numbers_like_others() -> None:
    _, result = split(Bucketed(shown=True), torch.randn(2, 5, 4), torch.arange(10).view(2, 5))
    kinds = {str(n.target): reason.kind for n, reason in result.undelegated.items()}
    assert "aten.log.default" not in kinds and kinds["aten.cumsum.default"] == POSITIONS


def test_one_of_several_results_is_no_position() -> None:
    class Ordered(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            values, places = torch.sort(ids.float(), stable=True)
            return ids[places] + (values + 0.5).long()

    _, result = split(Ordered(), torch.arange(6))
    assert result.undelegated


def test_numbers_that_were_floats_before_are_no_positions() -> None:
    class Indexed(torch.nn.Module):
        def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
            return table[(x.exp() * 3).long()] * 2

    _, result = split(Indexed(), torch.rand(4), torch.rand(20, 3))
    assert POSITIONS not in {reason.kind for reason in result.undelegated.values()}


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_in_a_cycle(seed: int) -> None:
    """Random graphs: contracting the groups to points must leave a graph without cycles."""
    generator = random.Random(seed)

    class Tangle(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values = [x, x + 1]
            for _ in range(30):
                a, b = generator.choice(values), generator.choice(values[-4:])
                kind = generator.random()
                values.append(torch.cummax(a, 0).values if kind < 0.25 else a * b)
            return torch.stack(values[-3:])

    module, result = split(Tangle(), torch.randn(3, 3))
    owner: dict[Node, object] = {}
    for number, group in enumerate(result.groups):
        for node in group:
            owner[node] = number
    points: dict[object, set[object]] = {}
    for node in module.graph.nodes:
        point = owner.get(node, node)
        points.setdefault(point, set())
        for source in node.all_input_nodes:
            if owner.get(source, source) != point:
                points[point].add(owner.get(source, source))
    finished: set[object] = set()
    while points.keys() - finished:
        ready = [p for p in points if p not in finished and points[p] <= finished]
        assert ready, "a cycle through a group"
        finished.update(ready)


def test_every_operator_is_in_a_group_or_has_a_reason() -> None:
    module, result = split(Diamond(), torch.randn(4, 4))
    grouped = {node for group in result.groups for node in group}
    for node in module.graph.nodes:
        if is_operator(node):
            assert (node in grouped) != (node in result.undelegated)


class Reshapes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        total = x.mean(2)
        for heads in (2, 4, 8):
            y = (x * heads).reshape(batch, length * heads, -1)  # splits a dynamic dimension
            total = total + y.mean((1, 2), keepdim=True)[..., 0]
        return total


def test_all_nodes_that_cannot_be_lowered_are_found_at_once() -> None:
    sizes = {0: torch.export.Dim("batch", max=4), 1: torch.export.Dim("length", max=9)}
    captured = capture(Reshapes(), (torch.randn(2, 5, 16),), None, ({**sizes},))
    split = partition(list(captured.module.graph.nodes), {})
    (group,) = split.groups
    with pytest.raises(GroupLoweringError, match="one dynamic dimension") as failure:
        lower_group(captured.module, group, Dynamic(captured.bounds))
    names = sorted(node.name for node in failure.value.reasons)
    assert names == ["reshape", "reshape_1", "reshape_2"]


def test_what_cannot_be_lowered_runs_outside() -> None:
    sizes = {0: torch.export.Dim("batch", max=4), 1: torch.export.Dim("length", max=9)}
    model, x = Reshapes(), torch.randn(2, 5, 16)
    lowered = penstock.lower(model, (x,), dynamic_shapes=({**sizes},))
    kinds = {reason.kind for _, reason in lowered.delegation.undelegated}
    assert kinds == {"lowering"}
    for shape in ((2, 5, 16), (4, 9, 16), (1, 2, 16)):
        x = torch.randn(*shape)
        (actual,) = penstock.load(lowered.to_bytes())(x)
        torch.testing.assert_close(torch.from_numpy(actual), model(x), rtol=1e-4, atol=1e-5)


class SizeOfResult(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.avg_pool1d(x.exp(), 2)
        return y + torch.arange(y.shape[-1], dtype=torch.float32)


def test_no_delegate_waits_for_its_own_size() -> None:
    sizes = {2: 2 * torch.export.Dim("half", min=2, max=9)}
    model, x = SizeOfResult(), torch.randn(1, 3, 8)
    module = capture(model, (x,), None, (sizes,)).module
    result = partition(list(module.graph.nodes), {})
    assert len(result.groups) == 2  # what reads a size comes after what it is the size of
    lowered = penstock.lower(model, (x,), dynamic_shapes=(sizes,))
    assert len(lowered.delegation.subgraphs) == 1  # the size is the input's, halved
    for length in (8, 4, 18):
        x = torch.randn(1, 3, length)
        (actual,) = penstock.load(lowered.to_bytes())(x)
        torch.testing.assert_close(torch.from_numpy(actual), model(x), rtol=1e-4, atol=1e-5)


class Outside(torch.nn.Module):
    """Each output is an operator that XNNPACK cannot have, for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(5, 4))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.nn.functional.embedding(ids, self.table),
            x[ids],
            x.sort(-1).values,
            x + torch.rand(5, 4),
            torch.isin(ids, torch.tensor([1, 2])),
            torch.lgamma(x),
        )


def test_reasons_say_what_xnnpack_lacks() -> None:
    example = (torch.tensor([1, 0, 3]), torch.randn(5, 4))
    lowered = penstock.lower(Outside().eval(), example)
    reasons = {report.target: reason.text for report, reason in lowered.delegation.undelegated}
    assert {name.split(".")[1]: text for name, text in reasons.items()} == {
        "embedding": "XNNPACK has no node that picks values by computed indices",
        "index": "its indices are computed at run time, XNNPACK picks from fixed places",
        "sort": "XNNPACK has no node that orders values or tells their places",
        "rand": "XNNPACK has no random numbers",
        "isin": "it works on int64, XNNPACK's operators on float32",
        "lgamma": "nothing makes aten.lgamma.default from XNNPACK's nodes: its definition has "
        "aten.where.self: what it does not choose may be NaN (a logarithm, root or quotient) and "
        "spoil it",
    }


class Einsum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ij,kj->ik", x, x)


class Diagonals(torch.nn.Module):
    """Four sums that PyTorch defines by tensors of seven dimensions, and one that it does not."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        wide = [torch.einsum("aab,cdefg->abcdeg", x * n, y) for n in range(4)]
        return (*wide, torch.einsum("aab,cb->ac", x, x[0]))


def test_what_is_refused_in_one_use_of_an_operator_is_not_in_others() -> None:
    lowered = penstock.lower(Diagonals(), (torch.randn(3, 3, 2), torch.randn(2, 2, 3, 2, 2)))
    reasons = [
        str(reason) for node, reason in lowered.delegation.undelegated if "einsum" in node.name
    ]
    assert len(reasons) == 4
    assert all("a tensor has 7 dimensions" in reason for reason in reasons)


def test_reasons_name_a_float_that_xnnpack_lacks() -> None:
    lowered = penstock.lower(Einsum(), (torch.randn(5, 4, dtype=torch.float64),))
    ((_, reason),) = lowered.delegation.undelegated
    assert str(reason) == "it works on float64, XNNPACK's operators on float32"

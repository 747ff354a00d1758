"""Capture: what comes back, where nodes come from, and one clear line for what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import penstock
from penstock.errors import ExportError, InputError, PenstockError, UnsupportedError

X = torch.ones(2, 3)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(4).to_sparse())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(self.matrix, x)


class Sum(nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return x + y


class Call(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def _raise(x: Any) -> Any:
    raise ValueError("first line\nsecond line")


MISTAKES: list[tuple[str, type[PenstockError], str, Callable[[], Any]]] = [
    ("too few inputs", InputError, "argument: 'y'", lambda: penstock.lower(Sum(), (X,))),
    ("unknown keyword", InputError, "'z'", lambda: penstock.lower(Sum(), (X,), {"y": X, "z": X})),
    ("no tuple", InputError, "(x,)", lambda: penstock.lower(Sum(), X)),
    ("no inputs", InputError, "tuple", lambda: penstock.lower(Sum())),
    ("no module", InputError, "function", lambda: penstock.lower(lambda x: x, (X,))),
    ("no archive", InputError, "nowhere.pt2", lambda: penstock.lower("nowhere.pt2")),
    ("a class", InputError, "Sum(...)", lambda: penstock.lower(Sum, (X,))),
    ("weights", InputError, "load_state_dict",
     lambda: penstock.lower(nn.Linear(3, 2).state_dict(), (X,))),
    ("inputs by name", InputError, "kwargs", lambda: penstock.lower(Sum(), {"x": X, "y": X})),
    ("a NumPy array", InputError, "the example input y is a NumPy ndarray",
     lambda: penstock.lower(Sum(), (X, X.numpy()))),
    ("a NumPy number", InputError, "torch.as_tensor",
     lambda: penstock.lower(Sum(), (X, np.float32(1)))),
    ("no weights", InputError, "weight is on the device meta",
     lambda: penstock.lower(nn.Linear(3, 2, device="meta"), (X.to("meta"),))),
    ("two devices", ExportError, "an example input is on cpu",
     lambda: penstock.lower(nn.Linear(3, 2, device="meta"), (X,))),
    ("two types", ExportError, "not float64 and float32",
     lambda: penstock.lower(nn.Linear(3, 2), (X.double(),))),
    ("integers", ExportError, "not int64 and float32",
     lambda: penstock.lower(nn.Linear(3, 2), (X.long(),))),
    ("other examples of an archive", InputError, "the program was exported for float32 [2, 3]",
     lambda: penstock.lower(torch.export.export(Sum(), (X, X)), (torch.ones(4, 3),) * 2)),
    ("dynamic shapes of an archive", InputError, "give them to torch.export.export",
     lambda: penstock.lower(torch.export.export(Sum(), (X, X)), dynamic_shapes=({0: 4}, None))),
    ("half of the examples of an archive", InputError, "kwargs without args",
     lambda: penstock.lower(torch.export.export(Sum(), (X, X)), kwargs={"y": X})),
    ("data for a float model", InputError, "calibration= is for quantized models",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), calibration=[(X,)])),
    ("held-out data for a float model", InputError, "held_out= is for quantized models",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), held_out=[(X,)])),
    ("a dynamic dimension that is not there", InputError, "dimension 2 of input input",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes=({2: Dim("b", max=4)},))),
    ("a dynamic dimension's text", InputError, "dimension '0' of input input",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes=({"0": Dim("b", max=4)},))),
    ("dynamic shapes of no form", InputError, "dynamic_shapes is True",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes=True)),
    ("damaged archive", ExportError, "test_export", lambda: penstock.lower(Path(__file__))),
    ("shapes that do not fit", ExportError, "[5, 5]",
     lambda: penstock.lower(Sum(), (X, torch.ones(5, 5)))),
    ("control flow on data", ExportError, "test_export.py:",
     lambda: penstock.lower(Call(lambda x: x * 2 if x.sum() > 0 else x), (X,))),
    ("an exception in the model", ExportError, "first line second line",
     lambda: penstock.lower(Call(_raise), (X,))),
    ("a key that files cannot hold", ExportError, "(1, 2)",
     lambda: penstock.lower(Call(lambda x: {(1, 2): x + 1}), (X,))),
    ("no bound", InputError, "dimension 0 of input",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes=({0: Dim("b")},))),
    ("no bound, automatic", InputError, "max=",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes=({0: Dim.AUTO},))),
    ("unknown dynamic input", ExportError, "zz",
     lambda: penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes={"zz": {0: Dim("b", max=4)}})),
    ("a scripted model", ExportError, "TorchScript",
     lambda: penstock.lower(torch.jit.script(nn.Linear(3, 2)), (X,))),
    ("a scripted part", ExportError, "its 1 is TorchScript", lambda: penstock.lower(
        nn.Sequential(nn.ReLU(), torch.jit.script(nn.Linear(3, 2))), (X,))),
    ("no kernel", UnsupportedError, "test_export.py:",
     lambda: penstock.lower(Call(torch.linalg.eigh), (torch.eye(3),))),
    ("a generator", UnsupportedError, "torch.Generator", lambda: penstock.lower(
        Call(lambda x: x[:, torch.randperm(3, generator=torch.Generator())]), (X,))),
    ("17 dimensions", UnsupportedError, "at most 16", lambda: penstock.lower(
        Call(lambda x: (x.reshape([1] * 17) * 2).flatten()), (torch.ones(1),))),
    ("a constant of 17 dimensions", UnsupportedError, "has 17 dimensions", lambda: penstock.lower(
        Call(lambda x: x * torch.ones([1] * 16 + [2])), (torch.ones([]),))),
    ("a sparse constant", UnsupportedError, "to_dense",
     lambda: penstock.lower(Sparse(), (torch.ones(4, 4),))),
    ("complex numbers of 16 bits", UnsupportedError, "complex32",
     lambda: penstock.lower(Sum(), (X.to(torch.complex32), X))),
]  # fmt: skip


@pytest.mark.parametrize("kind,text,call", [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistakes(
    kind: type[PenstockError], text: str, call: Callable[[], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """The right type, one line that names the culprit, and nothing on the screen."""
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    printed = capfd.readouterr()
    assert not printed.out and "Traceback" not in printed.err and "E1" not in printed.err[:2]


def test_exported_programs_and_archives(tmp_path: Path) -> None:
    exported = torch.export.export(Sum(), (X, X))
    torch.export.save(exported, tmp_path / "sum.pt2")
    for model in (exported, tmp_path / "sum.pt2", str(tmp_path / "sum.pt2")):
        (y,) = penstock.load(penstock.lower(model).to_bytes())(X.numpy(), X.numpy())
        assert (y == 2).all()


class Branches(torch.nn.Module):
    """A branch, and a region of its own in it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def affine(x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", enabled=False):
                return torch.relu(self.linear(x))

        y: torch.Tensor = torch.cond(x.sum() > 0, affine, lambda x: self.linear(x) - 1, (x,))
        return y


def test_an_exported_program_stays_as_it_is() -> None:
    x = torch.ones(2, 4)
    model = Branches().eval()
    exported = torch.export.export(model, (x,))
    graphs = [str(part.graph) for part in exported.graph_module.modules() if hasattr(part, "graph")]
    first, second = (penstock.lower(exported, quantize=None).to_bytes() for _ in range(2))
    assert first == second
    assert graphs == [
        str(part.graph) for part in exported.graph_module.modules() if hasattr(part, "graph")
    ]
    for sample in (x, -x):
        (y,) = penstock.load(first)(sample.numpy())
        torch.testing.assert_close(torch.from_numpy(y), model(sample))
        torch.testing.assert_close(exported.module()(sample), model(sample))


def test_exported_program_with_other_inputs() -> None:
    exported = torch.export.export(Sum(), (X, X))
    with pytest.raises(InputError, match="structure"):
        penstock.lower(exported, (X,))


def test_a_size_beyond_its_bound() -> None:
    lowered = penstock.lower(nn.Linear(3, 2), (X,), dynamic_shapes=({0: Dim("b", max=4)},))
    program = penstock.load(lowered.to_bytes())
    assert program(torch.ones(4, 3))[0].shape == (4, 2)
    with pytest.raises(InputError, match="bound 4"):
        program(torch.ones(5, 3))


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 1).argmax(-1)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.ModuleList([Inner()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[0](torch.relu(self.first(x)))


@pytest.mark.parametrize("quantize", [None, "static"])
@pytest.mark.parametrize("delegate", [True, False])
def test_where_nodes_come_from(quantize: str | None, delegate: bool) -> None:
    """Module path and the user's own line, in quantized graphs too."""
    delegation = penstock.lower(Outer(), (X,), quantize=quantize, delegate=delegate).delegation
    (node, reason) = next(
        pair for pair in delegation.undelegated if pair[0].target == "aten.argmax.default"
    )
    assert node.module == "blocks.0" and str(reason)
    path, _, line = node.source.rpartition(":")
    assert path == __file__
    assert "argmax" in Path(path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    linears = [
        found
        for found in (*delegation.delegated, *(pair[0] for pair in delegation.undelegated))
        if found.target == "aten.linear.default"
    ]
    assert [found.module for found in linears] == ["first"]
    assert linears[0].source.startswith(__file__)
    assert all(found.source.startswith(__file__) for found in delegation.delegated)


def test_one_example_for_two_inputs() -> None:
    class Difference(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return x - y * z

    x = torch.ones(3)
    program = penstock.load(penstock.lower(Difference(), (x, x), {"z": x}).to_bytes())
    (found,) = program(np.full(3, 9.0, "f"), np.full(3, 2.0, "f"), z=np.full(3, 3.0, "f"))
    assert (found == 3.0).all()


def test_writes_that_torch_cannot_follow() -> None:
    model, x = nn.CrossMapLRN2d(3), torch.randn(1, 4, 5, 5)
    with pytest.raises(ExportError, match="cannot follow what the model writes in place"):
        penstock.lower(model, (x,))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)


def test_packed_sequences() -> None:
    """The line of the model, and what to give instead."""
    with pytest.raises(ExportError, match=r"test_export\.py:\d+\).*the padded tensor"):
        penstock.lower(Packed(), (torch.randn(2, 5, 3), torch.tensor([5, 3])))


def test_the_line_of_the_model_is_named() -> None:
    def wrong(x: Any) -> Any:
        return x @ x

    with pytest.raises(ExportError, match=r"test_export\.py:\d+\)"):
        penstock.lower(Call(wrong), (X,))


def test_results_whose_sizes_pytorch_does_not_tell() -> None:
    class Fitted(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.linalg.lstsq(x, y).solution

    with pytest.raises(ExportError, match=r"linalg_lstsq.*compute it from other operators"):
        penstock.lower(Fitted(), (torch.randn(5, 3), torch.randn(5, 1)))


def test_a_decision_by_what_is_computed_says_what_to_use() -> None:
    with pytest.raises(ExportError, match=r"aten\.equal.*test_export\.py.*torch\.where"):
        penstock.lower(Call(lambda x: x if torch.equal(x, x * 2) else x + 1), (X,))


def test_a_long_reason_leaves_room_for_the_place_and_what_to_do() -> None:
    """torchvision's folder begins with the name of torch's."""

    def suppressed(x: torch.Tensor) -> torch.Tensor:
        sizes = [(x > i).nonzero().shape[0] for i in range(40)]
        kept = torch.ones(sum(sizes) * 4)
        return kept if kept.numel() > 400 else kept * 2

    with pytest.raises(ExportError, match=r"u0.*\.\.\. \(.*test_export.py:.*torch\.cond"):
        penstock.lower(Call(suppressed), (X,))
    torchvision = str(Path(torch.__file__).parents[1] / "torchvision" / "ops" / "boxes.py")
    scope: dict[str, Any] = {}
    exec(compile("def fails(x):\n    raise ValueError('no')", torchvision, "exec"), scope)
    with pytest.raises(ExportError, match=r"torchvision/ops/boxes\.py:2"):
        penstock.lower(Call(scope["fails"]), (X,))


@pytest.mark.parametrize(
    ("branch", "reason"),
    [
        (lambda x: x.t().contiguous().t(), "contiguous\\(\\)"),
        (lambda x: x.double(), "expected same dtype but got torch.float64 and torch.float32"),
        (lambda x: (x * 1, x * 2), "Unmatched output spec"),
    ],
)
def test_why_branches_do_not_go_together_is_said(branch: Any, reason: str) -> None:
    """Not the operands of ``cond``, which PyTorch lists before."""

    def chosen(x: Any) -> Any:
        return torch.cond(x.sum() > 0, branch, lambda x: x.clone(), (x,))

    with pytest.raises(ExportError, match=f"TorchRuntimeError: (?!RuntimeError).*{reason}"):
        penstock.lower(Call(chosen), (X,))


@dataclass
class Pair:
    x: torch.Tensor
    more: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None


def test_dataclasses_are_dicts() -> None:
    """Also those that PyTorch was not told of."""

    class Model(torch.nn.Module):
        def forward(self, pair: Pair) -> list[Pair]:
            return [Pair(pair.x + 1, (pair.x, pair.more[0]))]

    a, b = torch.randn(2), torch.randn(3)
    program = penstock.load(penstock.lower(Model(), (Pair(a, (b,)),)).to_bytes())
    (found,) = program({"x": a, "more": (b,)})
    assert list(found) == ["x", "more"]
    torch.testing.assert_close(torch.from_numpy(found["x"]), a + 1)
    torch.testing.assert_close(torch.from_numpy(found["more"][1]), b)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_models(wrap: Callable[[nn.Module], Any]) -> None:
    """They are what they wrap, whose inputs have names."""
    model = wrap(Sum())
    shapes = {"x": {0: Dim("batch", max=8)}, "y": {0: Dim("batch", max=8)}}
    program = penstock.load(penstock.lower(model, (X, X), dynamic_shapes=shapes).to_bytes())
    (found,) = program(torch.ones(5, 3), torch.ones(5, 3))
    np.testing.assert_array_equal(found, np.full((5, 3), 2, np.float32))
    with pytest.raises(InputError, match=r"do not fit Sum\.forward"):
        penstock.lower(model, (X,))

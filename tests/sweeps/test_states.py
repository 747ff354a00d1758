"""What a model changes besides its outputs, over several calls: buffers by each kind of write, and
inputs, also those of every operator of the table that has an in-place form. Against eager PyTorch,
here and on the stock runtime."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emit_harness import arrays, compare, run_stock
from state_cases import KINDS, Holder, in_place_forms
from sweep_cases import first_cases, named_cases
from torch import nn
from torch.utils import _pytree as pytree

import penstock
from penstock.formats.kernel_names import stock_kernels

Call = tuple[torch.Tensor, ...]
MODES: dict[str, dict[str, Any]] = {"delegated": {}, "kernels": {"delegate": False}}


@contextmanager
def named(label: str) -> Iterator[None]:
    """Says which of many it was that failed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{label}: {type(error).__name__}: {error}") from error


def flat(tree: Any) -> list[Any]:
    return [leaf for leaf in pytree.tree_leaves(tree) if leaf is not None]


def check_calls(
    module: nn.Module, calls: list[Call], directory: Path, name: str, tolerance: float = 2e-5,
    **options: Any,
) -> None:  # fmt: skip
    """Compiles, makes the calls here and eagerly, compares outputs and inputs after each, and
    leaves for the stock runtime the file, its inputs, and what it is to give."""
    before = copy.deepcopy(module.state_dict())
    lowered = penstock.lower(module, tuple(map(torch.clone, calls[0])), **options)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), f"lowering changed {key}"
    program = penstock.load(lowered.to_bytes(), threads=1)
    method = program.method()
    kernels = {str(operator) for operator in lowered.program.methods[0].operators}
    assert kernels <= stock_kernels()
    wanted: list[list[Any]] = []
    for number, call in enumerate(calls):
        ours = arrays(call)
        outputs = [np.copy(leaf) for leaf in flat(program(*ours))]
        theirs = tuple(map(torch.clone, call))
        with torch.no_grad():
            expected = flat(arrays(module(*theirs)))
        compare(outputs, expected, tolerance, 1.0)
        compare(ours, arrays(theirs), tolerance, 1.0)
        wanted.append([*(theirs[i].numpy() for i in method.written), *expected])
        if number == 0:
            first = expected
    for again in (penstock.load(lowered.to_bytes()), pickle.loads(pickle.dumps(program))):
        compare(flat(again(*arrays(calls[0]))), first, tolerance, 1.0)
    lowered.save(directory / f"{name}.pte")
    (directory / f"{name}.in.pkl").write_bytes(pickle.dumps([arrays(call) for call in calls]))
    (directory / f"{name}.wanted.pkl").write_bytes(pickle.dumps((wanted, tolerance)))


def check_on_stock(directory: Path) -> None:
    """The stock runtime gives the same over the same calls, the inputs that were written to
    first."""
    run_stock(directory)
    names = sorted(directory.glob("*.wanted.pkl"))
    assert names
    for path in names:
        wanted, tolerance = pickle.loads(path.read_bytes())
        found = pickle.loads(path.with_name(path.name.replace("wanted", "out")).read_bytes())
        assert not isinstance(found, str), f"{path.name}: {found}"
        for ours, theirs in zip(found, wanted, strict=True):
            compare([item for item in ours if item is not None], theirs, tolerance, 1.0)


def test_some_of_each(tmp_path: Path) -> None:
    check_kinds(list(KINDS)[::4], "delegated", tmp_path)
    check_kinds(list(KINDS)[2::8], "kernels", tmp_path)
    assert check_in_place(first_cases()[::9], tmp_path) > 3
    check_on_stock(tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("mode", MODES)
def test_kinds_of_write(tmp_path: Path, mode: str) -> None:
    check_kinds(list(KINDS), mode, tmp_path)
    check_on_stock(tmp_path)


def check_kinds(kinds: list[str], mode: str, directory: Path) -> None:
    for kind in kinds:
        torch.manual_seed(0)
        function, calls = KINDS[kind]()
        with named(f"{kind}, {mode}"):
            check_calls(Holder(function), calls, directory, f"{kind}-{mode}", **MODES[mode])


@pytest.mark.sweep
@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_int8(tmp_path: Path, scheme: str) -> None:
    """State next to int8 layers; nothing but the inputs the model writes to is changed."""

    class Recurrent(Holder):
        def __init__(self) -> None:
            super().__init__(None)
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, seen: torch.Tensor) -> Any:
            y = self.linear(x)
            seen.add_(1)
            self.m.copy_(y)
            return self.linear(self.m) + 0, self.m

    torch.manual_seed(0)
    calls = [(torch.randn(3, 4), torch.zeros(2)) for _ in range(4)]
    data = [(x, torch.zeros(2)) for x, _ in calls]
    check_calls(
        Recurrent(), calls, tmp_path, "int8", 0.05, quantize=scheme,
        calibration=data if scheme == "static" else None,
    )  # fmt: skip
    assert all(seen.abs().max() == 0 for _, seen in data)
    check_on_stock(tmp_path)


def check_in_place(cases: Any, directory: Path) -> int:
    """Each operator in place, on an input and on a buffer; returns how many there were."""
    done, failed = 0, []
    for name, case in cases:
        for number, (what, module, inputs) in enumerate(in_place_forms(case)):
            calls = [inputs, inputs, tuple(map(torch.clone, inputs))]
            torch.manual_seed(0)
            label = f"{name}-{number}-{what}"
            try:
                check_calls(module, calls, directory, label, case.tolerance)
            except Exception as error:
                failed.append(f"{label}: {type(error).__name__}: {error}")
            done += 1
    assert not failed, "\n".join(failed)
    return done


@pytest.mark.sweep
def test_in_place_forms(tmp_path: Path) -> None:
    assert check_in_place(named_cases(), tmp_path) > 100
    check_on_stock(tmp_path)

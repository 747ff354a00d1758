"""Compiles models, runs them on ours, on the stock runtime and eagerly, and compares."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import penstock

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A model and the calls to make, the first of which serves as example inputs.

    ``make`` gives the module and a list of calls, each ``(args, kwargs)`` or just ``args``.
    ``tolerance`` is relative to the largest absolute value of an output.
    """

    name: str
    make: Callable[[], tuple[nn.Module, list[Any]]]
    lower: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 2e-5
    #: the stock runtime's Python binding cannot be asked, or its kernel is known to differ
    stock: bool = True
    #: how many delegates it must be
    pieces: int | None = None
    #: one of many of its kind: runs with the sweeps only
    sweep: bool = False


@dataclass
class Result:
    """The outputs of each call: as eager gives them, folded by ours, flat by the stock runtime
    (or the text of an error)."""

    lowered: Any = None
    eager: list[Any] = field(default_factory=list)
    ours: Any = None
    stock: Any = None


def calls(case: Case) -> tuple[nn.Module, list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    torch.manual_seed(sum(case.name.encode()))
    module, made = case.make()
    pairs = [
        one if len(one) == 2 and isinstance(one[0], tuple) and isinstance(one[1], dict)
        else (one, {})
        for one in made
    ]  # fmt: skip
    return module.eval(), pairs


def arrays(tree: Any) -> Any:
    """NumPy copies of all tensors in a tree."""
    return pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone().numpy(), tree)


def compile_and_run(case: Case, directory: Path) -> Result:
    """Eager and ours; leaves what :func:`run_stock` needs in ``directory``."""
    module, pairs = calls(case)
    args, kwargs = pairs[0]
    # Lowering first: eager calls may change buffers.
    result = Result(lowered=penstock.lower(module, args, kwargs, **case.lower))
    path = directory / f"{case.name}.pte"
    result.lowered.save(path)
    runs = [
        pytree.tree_leaves((arrays(a), {name: arrays(k[name]) for name in kwargs}))
        for a, k in pairs
    ]
    path.with_suffix(".in.pkl").write_bytes(pickle.dumps(runs))
    program = penstock.load(path, threads=1, engine="xnnpack")
    result.ours = [
        pytree.tree_map_only(np.ndarray, np.copy, program(*arrays(a), **arrays(k)))
        for a, k in pairs
    ]
    with torch.no_grad():
        result.eager = [arrays(module(*a, **k)) for a, k in pairs]
    return result


def run_stock(directory: Path) -> None:
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [sys.executable, str(HERE / "stock_process.py"), str(directory)],
        check=True, capture_output=True, env=environment, timeout=600,
    )  # fmt: skip


def stock_outputs(case: Case, directory: Path) -> Any:
    return pickle.loads((directory / f"{case.name}.out.pkl").read_bytes())


def compare(
    ours: Sequence[Any], theirs: Sequence[Any], tolerance: float, least: float = 1e-6
) -> None:
    """Asserts that two flat lists of outputs agree in number, type, shape and value: within
    ``tolerance`` of an output's largest number, which is taken to be ``least`` at least. Numbers of
    16 bits may be a unit in the last place off: they are computed in float32 and rounded once."""
    assert len(ours) == len(theirs), f"{len(ours)} outputs, not {len(theirs)}"
    for number, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        where = f"output {number}"
        if not isinstance(right, np.ndarray):
            assert left == right or np.isclose(left, right), f"{where}: {left!r}, not {right!r}"
            continue
        left = np.asarray(left)
        assert left.dtype == right.dtype, f"{where}: {left.dtype}, not {right.dtype}"
        assert left.shape == right.shape, f"{where}: {left.shape}, not {right.shape}"
        if right.dtype.kind in "fc":
            finite = np.abs(right[np.isfinite(right)]).max(initial=0.0)
            unit = float(np.finfo(right.dtype).eps) if right.dtype.itemsize == 2 else 0.0
            atol = max(tolerance, unit) * max(float(finite), least)
            np.testing.assert_allclose(left, right, rtol=0, atol=atol, err_msg=where)
        else:
            np.testing.assert_array_equal(left, right, err_msg=where)

"""Programs of dynamic sizes: one file, inputs of several sizes, growing and shrinking, on our
runtime and on the stock one, judged by eager."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from operator_harness import as_module, assert_close

import penstock
from penstock.compiler.pipeline import LoweredProgram

#: Runs every program NAME.pte of a folder on its inputs NAME.<case>.in.npz, one after the other.
STOCK = """
import pathlib, sys
import numpy as np, torch
import executorch.kernels.quantized
from executorch.runtime import Runtime
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*.pte")):
    method = Runtime.get().load_program(path).load_method("forward")
    cases = folder.glob(path.stem + ".*.in.npz")
    for case in sorted(cases, key=lambda path: int(path.name.split(".")[1])):
        print(case.name, flush=True)
        inputs = np.load(case)
        tensors = [torch.from_numpy(inputs[f"arr_{i}"]) for i in range(len(inputs.files))]
        outputs = [np.array(o.numpy()) for o in method.execute(tensors)]
        np.savez(str(case).replace(".in.", ".out."), *outputs)
"""


def sqnr(expected: np.ndarray, actual: np.ndarray) -> float:
    """The signal-to-noise ratio in dB."""
    noise = float(np.square(actual - expected, dtype=np.float64).sum())
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / max(noise, 1e-30)))


def check_sizes(
    model: torch.nn.Module | Callable[..., Any],
    inputs: Sequence[Sequence[torch.Tensor]],
    dynamic_shapes: Any,
    *,
    tolerance: float = 1e-4,
    least_sqnr: float | None = None,
    pieces: int | None = 1,
    folder: Path | None = None,
    name: str = "program",
    **options: Any,
) -> LoweredProgram:
    """``model``, compiled for the first of ``inputs``, answers them all as eager does; within
    ``tolerance`` of the output's range, or with ``least_sqnr`` dB. It must be one delegate and
    nothing else (``pieces`` None: whatever it is). With ``folder`` the program and its cases are
    left there for the stock runtime."""
    module = as_module(model)
    if module is not model:
        dynamic_shapes = (dynamic_shapes,)  # a function's inputs are one variable argument
    lowered = penstock.lower(module, tuple(inputs[0]), dynamic_shapes=dynamic_shapes, **options)
    if pieces is not None:
        outside = {str(n.target): str(r) for n, r in lowered.delegation.undelegated}
        assert not outside, outside
        assert len(lowered.delegation.subgraphs) == pieces
    program = penstock.load(lowered.to_bytes(), threads=1)
    if folder is not None:
        lowered.save(folder / f"{name}.pte")
    for number, given in enumerate(inputs):
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(module(*given))
        arrays = [tensor.detach().contiguous().numpy() for tensor in given]
        actual = torch.utils._pytree.tree_leaves(program(*arrays))
        judge(expected, actual, tolerance, least_sqnr, [tuple(a.shape) for a in arrays])
        if folder is not None:
            np.savez(folder / f"{name}.{number}.in.npz", *arrays)
            np.savez(folder / f"{name}.{number}.ours.npz", *actual)
    return lowered


def check_pictures(
    function: Callable[[torch.Tensor], Any],
    sizes: Sequence[tuple[int, int, int]],
    dims: Mapping[int, Any],
    **options: Any,
) -> LoweredProgram:
    """:func:`check_sizes` of a function of pictures [n, 3, h, w], for each (n, h, w) in ``sizes``;
    ``dims`` are the dynamic dimensions."""
    torch.manual_seed(0)
    inputs = [(torch.randn(n, 3, h, w),) for n, h, w in sizes]
    return check_sizes(function, inputs, (dims,), **options)


def judge(
    expected: Sequence[torch.Tensor],
    actual: Sequence[np.ndarray],
    tolerance: float,
    least_sqnr: float | None,
    shapes: Sequence[tuple[int, ...]],
) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        reference = other.detach().numpy()
        if least_sqnr is None:
            assert_close(np.asarray(one), reference, tolerance, f"the answer at {shapes}")
        else:
            assert one.shape == reference.shape
            assert sqnr(reference, one) >= least_sqnr, (sqnr(reference, one), shapes)


def check_on_stock(folder: Path, tolerance: float = 1e-5) -> None:
    """The programs that :func:`check_sizes` left in ``folder`` give the same on the stock runtime
    as on ours, to the last digits."""
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.stdout[-300:], done.stderr[-2000:])
    cases = sorted(folder.glob("*.ours.npz"))
    assert cases
    for case in cases:
        ours = np.load(case)
        theirs = np.load(str(case).replace(".ours.", ".out."))
        assert len(ours.files) == len(theirs.files)
        for key in ours.files:
            assert_close(theirs[key], ours[key], tolerance, f"{case.name} on the stock runtime")

"""Every entry's programs on the stock runtime: the same bits as on ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shape_cases  # noqa: F401  registers its cases
import torch
import window_cases  # noqa: F401
from operator_cases import CASES
from operator_harness import as_module
from test_long_movement import MOVES, with_specials
from test_quantized_entries import OPERATIONS, Between
from test_quantized_recurrent import MODELS
from test_quantized_volumes import CONVOLUTIONS, VOLUME
from test_random_programs import SHAPES, RandomProgram
from test_windowed import SIZES

import penstock

pytest.importorskip("executorch")

#: Runs every program of a folder: NAME.pte with the inputs NAME.in.npz gives NAME.out.npz. Says
#: which one it is at, so that the last line names the one that ended the process.
STOCK = """
import pathlib, sys
import numpy as np, torch
import executorch.kernels.quantized
from executorch.runtime import Runtime
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pte")):
    print(path.stem, flush=True)
    inputs = np.load(path.with_suffix(".in.npz"))
    tensors = [torch.from_numpy(inputs[f"arr_{i}"]) for i in range(len(inputs.files))]
    method = Runtime.get().load_program(path).load_method("forward")
    np.savez(path.with_suffix(".out.npz"), *[o.numpy() for o in method.execute(tensors)])
"""


def write(
    folder: Path, name: str, model: Any, inputs: Sequence[torch.Tensor], **options: Any
) -> list[np.ndarray]:
    """Compiles ``model``, writes what the stock runtime needs, and returns our answer."""
    lowered = penstock.lower(as_module(model), tuple(inputs), **options)
    lowered.save(folder / f"{name}.pte")
    arrays = [tensor.detach().contiguous().numpy() for tensor in inputs]
    np.savez(folder / f"{name}.in.npz", *arrays)
    program = penstock.load(folder / f"{name}.pte", threads=1, engine="xnnpack")
    leaves = torch.utils._pytree.tree_leaves(program(*arrays))
    return [np.asarray(leaf) for leaf in leaves]


def test_same_bits(tmp_path: Path) -> None:
    ours: dict[str, list[np.ndarray]] = {}
    for case in {case.entry: case for case in CASES}.values():
        ours[case.entry] = write(tmp_path, case.entry, case.function, case.inputs)
    for name, (_, operation) in OPERATIONS.items():
        x = torch.randn(1, 3, 8, 6)
        ours[f"int8 {name}"] = write(
            tmp_path, f"int8 {name}", Between(operation), (x,), quantize="static"
        )
    for name, model in CONVOLUTIONS.items():
        ours[f"int8 {name} volumes"] = write(
            tmp_path, f"int8 {name} volumes", model, (torch.randn(VOLUME),), quantize="static"
        )
    for name, (model, shapes, _) in MODELS.items():
        given = tuple(torch.randn(shape) for shape in shapes)
        ours[f"int8 {name}"] = write(
            tmp_path, f"int8 {name}", model.eval(), given, quantize="dynamic"
        )
    for name, (function, shape) in MOVES.items():
        x = with_specials(shape)
        ours[f"long {name}"] = write(tmp_path, f"long {name}", function, (x,))
    for name, (program, shape, _) in SIZES.items():
        x = torch.randn(shape)
        ours[f"windows {name}"] = write(tmp_path, f"windows {name}", program, (x,))
    for seed in range(24):
        x = torch.randn(SHAPES[seed % len(SHAPES)])
        name = f"random {seed}"
        ours[name] = write(tmp_path, name, RandomProgram(seed, 6), (x,))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOCK, str(tmp_path)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or ["the start"])[-1]
    assert done.returncode == 0, f"ended at {last}: {done.stderr[-800:]}"
    different = []
    for name, outputs in ours.items():
        theirs = np.load(tmp_path / f"{name}.out.npz")
        for position, output in enumerate(outputs):
            if not np.array_equal(output, theirs[f"arr_{position}"], equal_nan=True):
                different.append(f"{name}, output {position}")
    assert not different

"""MobileNetV2 without a delegate: the kernels against the stock runtime's, in turns."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("executorch") is None, reason="needs the stock executorch package"
    ),
]

RUNS = 5

OURS = f"""
import sys, time, numpy as np, penstock
program, x = penstock.load(sys.argv[1]), np.load(sys.argv[2])
program(x)
for _ in range({RUNS}):
    start = time.perf_counter()
    program(x)
    print("seconds", time.perf_counter() - start)
"""

STOCK = f"""
import sys, time, numpy as np, torch
from executorch.runtime import Runtime
method = Runtime.get().load_program(sys.argv[1]).load_method("forward")
x = torch.from_numpy(np.load(sys.argv[2]))
method.execute([x])
for _ in range({RUNS}):
    start = time.perf_counter()
    method.execute([x])
    print("seconds", time.perf_counter() - start)
"""


def best(script: str, *args: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", script, *args], check=True, capture_output=True, text=True
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("seconds")]
    return min(float(seconds) for _, seconds in lines)


def test_undelegated_mv2_is_five_times_faster(tmp_path: Path) -> None:
    import numpy as np

    import penstock
    from penstock import zoo

    model = zoo.create("mv2")
    program, inputs = str(tmp_path / "mv2.pte"), str(tmp_path / "x.npy")
    penstock.lower(model.module, model.args, delegate=False).save(program)
    np.save(inputs, model.args[0].numpy())
    turns = [(best(OURS, program, inputs), best(STOCK, program, inputs)) for _ in range(2)]
    ours, stock = (min(turn[i] for turn in turns) for i in range(2))
    print(f"undelegated mv2: {ours * 1e3:.1f} ms, stock {stock * 1e3:.1f} ms, {stock / ours:.1f} x")
    assert stock >= 5 * ours

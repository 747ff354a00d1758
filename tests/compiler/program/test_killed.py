"""A compile that is killed leaves a whole file: the one before, or its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from children import environment

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import penstock

torch.set_num_threads(1)
torch.manual_seed(0)
path = Path(sys.argv[1])
layers = [torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 64)]
models = [torch.nn.Sequential(*layers).eval(), torch.nn.Sequential(*layers[:2]).eval()]

def compile(model):
    penstock.lower(model, (torch.ones(1, 512),)).save(path)

contents = []
for model in models:
    compile(model)
    contents.append(path.read_bytes())
start = time.process_time()
for model in models:
    compile(model)
both = time.process_time() - start
generator, found = random.Random(0), [0, 0]
for _ in range(200):
    moment = 1e-3 + 1.5 * both * generator.random()
    child = os.fork()
    if child == 0:
        try:
            # In the time of its own CPU, and with no handler: it ends wherever it is.
            signal.setitimer(signal.ITIMER_PROF, moment)
            while True:
                for model in models:
                    compile(model)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGPROF
    found[contents.index(path.read_bytes())] += 1
    for left in path.parent.glob(".model.pte.*"):
        left.unlink()
print(*found)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_200_moments_of_a_compile(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "model.pte"], capture_output=True, text=True,
        env=environment(OMP_NUM_THREADS="1"), timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [int(word) for word in done.stdout.split()]
    assert sum(found) == 200 and min(found) > 20  # both files were met often

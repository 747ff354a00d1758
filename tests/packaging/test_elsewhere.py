"""Where there is no XNNPACK, as on Windows: models compile, and running says what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: As a machine without POSIX's own modules and without any library of XNNPACK's.
WITHOUT = """
import os, sys
import torch, torchao  # which know such machines
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "fork", "geteuid", "uname", "pread"):
    if hasattr(os, name):
        delattr(os, name)
from pathlib import Path
from penstock.runtime.engines.xnnpack import library
library._folders = lambda: iter(())
from penstock.runtime.engines.native import library as native
native.FOLDER = Path("nowhere")
"""
COMPILE = """
import penstock
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                            torch.nn.Linear(8 * 36, 4)).eval()
image = torch.randn(1, 3, 8, 8)
for scheme in (None, "static", "dynamic"):
    lowered = penstock.lower(model, (image,), quantize=scheme)
    lowered.save(f"{scheme}.pte")
    print(scheme, f"{lowered.delegation.share:.0%}")
try:
    penstock.load("static.pte")(image.numpy())
except penstock.BackendUnavailableError as error:
    print(error)
"""


def test_compiling_works_and_running_says_what_is_missing(tmp_path: Path) -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PENSTOCK_")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + COMPILE],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["None 100%", "static 100%", "dynamic 100%"]
    assert len(lines) == 4 and "XNNPACK's library (" in lines[3] and "is missing" in lines[3]
    assert len(list(tmp_path.glob("*.pte"))) == 3

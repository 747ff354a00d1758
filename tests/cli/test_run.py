"""``penstock run``."""

from __future__ import annotations

import numpy as np
from cli_harness import Shell


def test_run(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    done = shell.call("penstock", "run", "l.pte", "-n", "3", "--output-file", "y.npy")
    assert done.returncode == 0 and "latency of 3 executions" in done.stdout
    assert np.load(shell.folder / "y.npy").shape == (3, 3)
    shell.fails("penstock", "run", "absent.pte", message="absent.pte")

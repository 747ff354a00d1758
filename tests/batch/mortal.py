"""A scorer whose worker is killed half-way, once."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.batch import Scorer


@dataclass(frozen=True)
class Mortal(Scorer):
    """Kills its worker, or the process above it whose command has ``victim`` in it, when it has
    the row with the id ``last`` for the first time. ``pids`` gets a file for each process that
    answered."""

    pids: str = ""
    last: int = 0
    victim: str = ""

    def answers(self, batch: Any, first: int = 0) -> Any:
        folder = Path(self.pids)
        found = super().answers(batch, first)
        (folder / str(os.getpid())).touch()
        if self.last in batch.column("id").to_pylist():
            try:
                (folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                return found
            os.kill(_named(self.victim), signal.SIGKILL)
        return found


def _named(victim: str) -> int:
    pid = os.getpid()
    while victim and victim.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert pid > 1, f"there is no {victim} above"
    return pid

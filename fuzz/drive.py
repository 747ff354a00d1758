"""Gives cases to workers, watches them, and counts what came of it; resumable."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.corpus import ROOT
from fuzz.mutations import Seed
from fuzz.worker import BOARD

#: CPU seconds that one file may take before it counts as a hang.
HANG = 5.0
#: Cases a worker is given at once; a process of its own tries them.
CHUNK = 500


@dataclass
class Tally:
    """How the cases of one runtime ended. ``next`` is the first that was not tried yet;
    ``crashes`` have a case's number and the signal, ``hangs`` the number, ``failures`` the number
    and an error that is not one of Penstock's."""

    corpus: str
    next: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: list[tuple[int, int]] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return sum(self.outcomes.values()) + len(self.crashes) + len(self.hangs)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(vars(self), indent=1))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Tally:
        data = json.loads(path.read_text())
        data["outcomes"] = Counter(data["outcomes"])
        return cls(**data)


#: The code that makes a case of a program.
PROGRAMS = ("mutations.py", "sites.py", "worker.py")


def digest(seeds: Sequence[Seed], code: Sequence[str] = PROGRAMS) -> str:
    """Names a corpus and the code that mutates it: cases have the same numbers as long as it is
    the same."""
    found = hashlib.sha256()
    for seed in seeds:
        found.update(seed.program + (seed.data_file or b""))
    for file in code:
        found.update((Path(__file__).parent / file).read_bytes())
    return found.hexdigest()[:16]


class Worker:
    """A process of :mod:`fuzz.worker`, and the number of the case that it is at."""

    def __init__(self, runtime: str, folder: Path, module: str = "fuzz.worker") -> None:
        self._board = tempfile.NamedTemporaryFile()  # noqa: SIM115  closed with the worker
        self._board.write(BOARD.pack(-1, 0))
        self._board.flush()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, runtime, str(folder), self._board.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=ROOT, env=_environment(),
        )  # fmt: skip
        # The stock runtime may print there, too.
        while self._line() != "ready":
            pass

    def run(self, first: int, count: int, tally: Tally) -> int:
        """Tries ``count`` cases and notes the outcomes. The number of cases that were tried:
        fewer if the process died or hung at one, which is noted, too."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {count}\n")
        self._process.stdin.flush()
        at, began, hangs = first - 1, 0.0, False
        while True:
            if self._readable(0.25):
                line = self._line()
                if line.startswith('{"outcomes"'):
                    answer = json.loads(line)
                    tally.outcomes.update(answer["outcomes"])
                    tally.failures += [tuple(failure) for failure in answer["failures"]]
                    return count
                if line.startswith('{"died"'):
                    at, _ = self._at()
                    if not first <= at < first + count:
                        raise RuntimeError(f"a worker said {line} outside of any case")
                    if hangs:
                        tally.hangs.append(at)
                    else:
                        tally.crashes.append((at, -json.loads(line)["died"]))
                    # What became of the others of this chunk is lost with the process.
                    tally.outcomes["before a crash or hang"] += at - first
                    return at - first + 1
                continue
            now, process = self._at()
            if now != at:
                at, began = now, _cpu_seconds(process)
            elif now >= 0 and not hangs and _cpu_seconds(process) - began > HANG:
                hangs = True
                os.kill(process, signal.SIGKILL)

    def _at(self) -> tuple[int, int]:
        """The case at work and the process that tries it."""
        self._board.seek(0)
        case, process = BOARD.unpack(self._board.read(BOARD.size))
        return case, process

    def _readable(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with {self._process.wait()}")
        return line.strip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._board.close()


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment() -> dict[str, str]:
    """Ours, so that a worker finds the modules that this process finds."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def drive(
    runtime: str,
    folder: Path,
    tally: Tally,
    *,
    until: int,
    seconds: float | None = None,
    workers: int = 1,
    module: str = "fuzz.worker",
    report: Callable[[Tally], None] = lambda tally: None,
) -> None:
    """Tries cases from ``tally.next`` up to ``until``, for at most so many ``seconds``.

    ``module`` is what a worker runs, with what :mod:`fuzz.worker` is given.
    """
    end = None if seconds is None else time.monotonic() + seconds
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        worker = None
        try:
            worker = Worker(runtime, folder, module)
            while end is None or time.monotonic() < end:
                with lock:
                    first = tally.next
                    count = min(CHUNK, until - first)
                    if count <= 0 or errors:
                        break
                    tally.next += count
                own = Tally(tally.corpus)
                while count > 0:
                    tried = worker.run(first, count, own)
                    first, count = first + tried, count - tried
                with lock:
                    tally.outcomes.update(own.outcomes)
                    tally.crashes += own.crashes
                    tally.hangs += own.hangs
                    tally.failures += own.failures
                    report(tally)
        except BaseException as error:
            errors.append(error)
        finally:
            if worker is not None:
                worker.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]

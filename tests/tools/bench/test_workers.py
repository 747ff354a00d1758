"""Worker processes: answers, errors, and their end."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from children import environment

import penstock
from penstock.tools.bench import worker as worker_module
from penstock.tools.bench.child import WorkerError
from penstock.tools.bench.peers import PEERS, Peer, parse_peers
from penstock.tools.bench.precision import precision_of
from penstock.tools.bench.run import Contestant, Samples, bench
from penstock.tools.bench.workers import Worker
from penstock.tools.samples import write_inputs


class Quiet:
    def doing(self, text: str) -> None:
        pass

    def measured(self, seconds: float) -> None:
        pass


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples]:
    folder = tmp_path_factory.mktemp("linear")
    torch.manual_seed(0)
    model, x = torch.nn.Linear(8, 4), torch.randn(3, 8)
    penstock.lower(model, (x,)).save(folder / "linear.pte")
    write_inputs(folder / "in.npz", [x.numpy()])
    with torch.no_grad():
        eager = [model(x).numpy()]
    return folder / "linear.pte", Samples((folder / "in.npz",), (eager,))


def contestant(runtime: str, linear: tuple[Path, Samples]) -> Contestant:
    return Contestant(runtime, runtime, "linear.pte", linear[0], "float", linear[1])


def test_ours_beside_the_stock_runtime(linear: tuple[Path, Samples]) -> None:
    report = bench(
        [contestant(name, linear) for name in ("penstock", "executorch")],
        threads=[1], seconds=0.1, launches=1, progress=Quiet(),
    )  # fmt: skip
    ours, stock = report.rows
    assert ours.error is None and stock.error is None
    assert ours.sqnr_db is not None and ours.sqnr_db > 100
    assert stock.sqnr_db is not None and stock.sqnr_db > 100
    assert ours.ratio is not None and ours.ratio.median == 1
    assert stock.ratio is not None and stock.ratio.low <= stock.ratio.median <= stock.ratio.high
    assert stock.best_ms is not None and stock.best_ms > 0 and stock.turns >= 5
    assert ours.peak_mb is not None and stock.peak_mb is not None and stock.peak_mb > ours.peak_mb
    assert report.as_dict()["rows"][0]["times_ms"]["median"] > 0
    assert "executorch" in report._repr_html_()


def test_one_that_fails_leaves_the_others(linear: tuple[Path, Samples], tmp_path: Path) -> None:
    broken = tmp_path / "broken.pte"
    broken.write_bytes(b"no program")
    bad = Contestant("penstock", "Penstock", "broken.pte", broken, "float", linear[1])
    report = bench(
        [bad, contestant("penstock", linear)],
        threads=[1, 2], seconds=0.05, launches=1, progress=Quiet(),
    )  # fmt: skip
    assert [row.error is None for row in report.rows] == [False, True, False, True]
    assert "broken.pte" in str(report.rows[0].error)
    assert report.rows[1].ratio is not None and report.rows[1].ratio.median == 1


def test_no_worker_is_left(linear: tuple[Path, Samples]) -> None:
    with pytest.raises(KeyboardInterrupt), Worker("penstock", 1) as worker:
        worker.start()
        process = worker.pid
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with Worker("penstock", 1) as worker:
        process = worker.pid
        with pytest.raises(WorkerError, match="FileNotFoundError"):
            worker.load("it", linear[0], Path("absent.npz"))
        assert [a.shape for a in answers(worker, linear)] == [(3, 4)]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def answers(worker: Worker, linear: tuple[Path, Samples]) -> list[np.ndarray]:
    worker.load("it", linear[0], linear[1].inputs[0])
    return worker.outputs("it")


def test_a_worker_that_dies_says_how(linear: tuple[Path, Samples]) -> None:
    with Worker("penstock", 1) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerError, match="SIGKILL"):
            worker.start()


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Peer("x", "X", ("no_such_package",), "bench", ".onnx")
    message = absent.missing()
    assert message is not None and "penstock-xnnpack[bench]" in message
    assert PEERS["torch"].missing() is None
    with pytest.raises(penstock.InputError, match="executorch"):
        parse_peers("nonsense")
    assert [peer.name for peer in parse_peers("torch, executorch,torch")] == ["torch", "executorch"]


def test_every_peer_has_its_worker() -> None:
    assert PEERS.keys() <= worker_module.RUNTIMES.keys()
    for place in worker_module.RUNTIMES.values():
        module, _, attribute = place.partition(":")
        path = Path(worker_module.__file__).parent / "runtimes" / f"{module}.py"
        assert f"class {attribute}" in path.read_text()
    own = importlib.import_module("penstock.tools.bench.runtimes.own")
    assert own.PenstockNative.engine == "native"


@pytest.mark.parametrize(
    ("quantize", "precision"),
    [(None, "float"), ("static", "static int8"), ("dynamic", "dynamic int8"), ("4bit", "4-bit")],
)
def test_precision(quantize: str | None, precision: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))
    x = torch.randn(3, 256)
    lowered = penstock.lower(
        model, (x,), quantize=quantize, calibration=[(x,)] if quantize == "static" else None
    )
    program = penstock.load(lowered.to_bytes()).program
    assert precision_of(program, program.methods[0]) == precision


def test_parent_that_is_killed_leaves_no_worker(linear: tuple[Path, Samples]) -> None:
    code = (
        "import sys, time\n"
        "from penstock.tools.bench.workers import Worker\n"
        "worker = Worker('penstock', 1)\n"
        "worker.start()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    # Ends as its input does.
    for _ in range(200):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the worker is still there")

"""A Parquet file to another: in order, within memory, and however often it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from batch_harness import IMAGE, answers, array, flat, samples, table
from children import environment
from torch import nn

import penstock
from penstock.batch import Scorer, files, score_file
from penstock.errors import InputError


def written(path: Path, rows: Any, group: int = 100) -> Path:
    pq.write_table(rows, path, row_group_size=group)
    return path


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_all_rows_in_order(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 50_000)
    monkeypatch.setattr(files, "PART_SECONDS", 0.0)
    source = written(tmp_path / "in.parquet", table(333))
    told: list[tuple[int, int]] = []
    done = score_file(
        Scorer(IMAGE), source, tmp_path / "out.parquet", workers=workers,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    found = pq.read_table(tmp_path / "out.parquet")
    assert done == 333 and found["id"].to_pylist() == list(range(333))
    np.testing.assert_array_equal(array(found["output_0"]), answers(333))
    assert told[0] == (0, 333) and told[-1] == (333, 333) and told == sorted(told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


RUN = """
import os, signal, sys, threading
from penstock.batch import Scorer, files, score_file

files.CHUNK_BYTES, files.PART_SECONDS = 20_000, 0.005
program, source, target, rows, wait = sys.argv[1:]
begin = None

def kill(done, total):
    # Some rows later, at any point of the work: when this is called a chunk has just been done.
    global begin
    begin = done if begin is None else begin
    if done >= begin + int(rows):
        threading.Timer(float(wait), os.kill, (os.getpid(), signal.SIGKILL)).start()

score_file(Scorer(program), source, target, workers=2, progress=kill)
"""


def test_killed_again_and_again(tmp_path: Path) -> None:
    source, target = written(tmp_path / "in.parquet", table(1500)), tmp_path / "out.parquet"
    generator, parts = random.Random(0), tmp_path / "out.parquet.parts"
    done = 0
    for rows in (150, 250, 100, 200, 2000):
        command = [sys.executable, "-c", RUN, IMAGE, source, target, str(rows)]
        wait = str(generator.random() * 0.01)
        code = subprocess.run([*command, wait], env=environment(), timeout=240).returncode
        if rows < 1500:
            assert code == -signal.SIGKILL and not target.exists()
            before, done = done, max(int(path.stem[-12:]) for path in parts.glob("rows-*"))
            assert done > before
    assert code == 0
    found = pq.read_table(target)
    assert found["id"].to_pylist() == list(range(1500))
    np.testing.assert_array_equal(array(found["output_0"]), answers(1500))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def stopped(source: Path, target: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends when some rows are done."""

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", 50_000)
        patch.setattr(files, "PART_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            score_file(scorer, source, target, workers=1, progress=stop)
    assert not target.exists()


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = written(tmp_path / "in.parquet", table(200)), tmp_path / "out.parquet"
    stopped(source, target, Scorer(IMAGE), monkeypatch)
    begun: list[int] = []
    answer = Scorer.answers
    monkeypatch.setattr(
        Scorer, "answers", lambda self, b, first=0: begun.append(first) or answer(self, b, first)
    )
    told: list[int] = []
    score_file(Scorer(IMAGE), source, target, progress=lambda done, total: told.append(done))
    assert min(begun) == told[0] > 0
    np.testing.assert_array_equal(array(pq.read_table(target)["output_0"]), answers(200))


def test_parts_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = written(tmp_path / "in.parquet", table(50)), tmp_path / "out.parquet"
    stopped(source, target, Scorer(IMAGE), monkeypatch)
    with pytest.raises(InputError, match="parts of an unfinished run of other files or options"):
        score_file(Scorer(IMAGE, keep=()), source, target)
    os.utime(source, (1, 1))
    with pytest.raises(InputError, match="parts of an unfinished run of other files or options"):
        score_file(Scorer(IMAGE), source, target)


def test_a_lost_or_damaged_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is computed again, together with what came after it."""
    source, target = written(tmp_path / "in.parquet", table(50)), tmp_path / "out.parquet"
    stopped(source, target, Scorer(IMAGE), monkeypatch)
    (part,) = (tmp_path / "out.parquet.parts").glob("rows-*")
    part.write_bytes(b"no Parquet")
    with pytest.raises(Exception, match="is damaged: .*; remove it"):
        score_file(Scorer(IMAGE), source, target)
    part.unlink()
    score_file(Scorer(IMAGE), source, target)
    np.testing.assert_array_equal(array(pq.read_table(target)["output_0"]), answers(50))


def test_two_runs_into_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    source, target = written(tmp_path / "in.parquet", table(20)), tmp_path / "out.parquet"

    def another(done: int, total: int) -> None:
        with pytest.raises(InputError, match="another run writes"):
            score_file(Scorer(IMAGE), source, target)

    score_file(Scorer(IMAGE), source, target, progress=another)
    with pytest.raises(InputError, match="is there already; remove it"):
        score_file(Scorer(IMAGE), source, target)


@pytest.mark.parametrize("workers", [0, 1025, 10**9])
def test_numbers_of_workers(workers: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"workers is {workers}; give one from 1 to 1024"):
        score_file(Scorer(IMAGE), tmp_path / "in", tmp_path / "out", workers=workers)


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    with pytest.raises(InputError, match="there is no file .*absent"):
        score_file(Scorer(IMAGE), tmp_path / "absent", target)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a device or a pipe"):
        score_file(Scorer(IMAGE), tmp_path / "pipe", target)
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        score_file(Scorer(IMAGE), IMAGE, target)
    source = written(tmp_path / "in.parquet", table(64), 8)
    content = bytearray(source.read_bytes())
    content[4:64] = b"\xff" * 60
    source.write_bytes(content)
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        score_file(Scorer(IMAGE), source, target)
    content = bytearray(written(source, table(4)).read_bytes())
    content[-8 - int.from_bytes(content[-8:-4], "little")] = 0x1F  # a type that there is not
    source.write_bytes(content)
    with pytest.raises(InputError, match="no Parquet file that can be read") as caught:
        score_file(Scorer(IMAGE), source, target)
    assert str(caught.value).isprintable()
    assert not target.exists()
    with pytest.raises(InputError, match="nowhere.*No such file"):
        score_file(
            Scorer(IMAGE), written(source, table(4)), tmp_path / "nowhere" / "out.parquet"
        )  # fmt: skip


class Grows(nn.Module):
    """Answers of 256 KiB to rows of 64 bytes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, None] * torch.ones(4096)


@pytest.mark.parametrize("packed", [False, True])
def test_a_chunk_is_as_large_as_what_it_becomes(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large answers, and rows that take less in the file than in memory."""
    rows = table(64) if packed else pa.table({"x": flat(np.ones((64, 16), np.float32))})
    if packed:  # all the same: one entry of a dictionary
        rows = rows.set_column(1, "x", flat(np.ones((64, 768), np.float32)))
        program, most = str(IMAGE), 100_000
    else:
        program, most = str(tmp_path / "grows.pte"), 1 << 20
        penstock.lower(Grows(), (torch.ones(1, 16),)).save(program)
    seen: list[int] = []
    answer = Scorer.answers
    monkeypatch.setattr(
        Scorer, "answers", lambda self, b, first=0: seen.append(len(b)) or answer(self, b, first)
    )
    monkeypatch.setattr(files, "CHUNK_BYTES", most)
    source = written(tmp_path / "in.parquet", rows)
    assert score_file(Scorer(program), source, tmp_path / "out.parquet") == 64
    assert max(seen) == (most // 3092 if packed else 3)


def test_the_row_is_the_files(tmp_path: Path) -> None:
    rows = [[0.5] * 768 for _ in range(300)]
    rows[277] = rows[277][1:]
    source = written(tmp_path / "in.parquet", pa.table({"x": rows}))
    with pytest.raises(InputError, match=r"row 277 of the column 'x' has shape \(767,\)"):
        score_file(Scorer(IMAGE), source, tmp_path / "out.parquet")


def test_no_rows(tmp_path: Path) -> None:
    source = written(tmp_path / "in.parquet", table(1).slice(0, 0))
    assert score_file(Scorer(IMAGE), source, tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["id", "output_0"]


FULL = """
import resource, sys
from penstock.batch import Scorer, score_file
from penstock.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    score_file(Scorer(sys.argv[1]), sys.argv[2], sys.argv[3])
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits")
def test_no_room(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk; with more room the run goes on."""
    source, target = written(tmp_path / "in.parquet", table(1000)), tmp_path / "out.parquet"
    done = subprocess.run(
        [sys.executable, "-c", FULL, IMAGE, source, target], env=environment(), text=True,
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    assert "cannot write the answers to " in done.stdout and "File too large" in done.stdout
    assert not target.exists()
    assert score_file(Scorer(IMAGE), source, target) == 1000


MEMORY = """
import sys
from penstock.batch import Scorer, files, score_file
files.CHUNK_BYTES, files.PART_SECONDS = 1 << 20, 0.1
score_file(Scorer(sys.argv[1]), sys.argv[2], sys.argv[3], workers=2)
# Not getrusage, whose peak begins with that of the process that started this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 30000):
        rows = pa.table({"id": np.arange(count), "x": flat(samples(100).repeat(count // 100, 0))})
        # One group: what is read at a time must not hang on how the file was written.
        source = written(tmp_path / f"{count}.parquet", rows, count)
        command = [sys.executable, "-c", MEMORY, IMAGE, source, tmp_path / f"{count}.out"]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=True, timeout=240
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 45, peaks  # the larger file has 89 MB more

"""Mutated programs do no harm; and whatever harm one did would be seen."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fuzz import drive as driving
from fuzz.checkpoints import make as make_checkpoints
from fuzz.corpus import corpus
from fuzz.drive import Tally, digest, drive
from fuzz.worker import case

NOWHERE = Path("no folder")


@pytest.mark.parametrize(
    ("engine", "first", "count"),
    [
        ("xnnpack", 0, 1500),
        ("auto", 1500, 1500),
        pytest.param("auto", 10_000, 10_000, marks=pytest.mark.slow),
    ],
)
def test_no_file_brings_the_process_down(engine: str, first: int, count: int) -> None:
    tally = Tally("", next=first)
    drive(engine, NOWHERE, tally, until=first + count)
    assert not (tally.crashes or tally.hangs or tally.failures)
    assert tally.tried == count
    for outcome in ("ran", "refused at load", "refused at prepare"):
        assert tally.outcomes[outcome] > count // 20, tally.outcomes


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("inputs", 1500),
        ("checkpoints", 300),
        pytest.param("checkpoints", 20_000, marks=pytest.mark.slow),
    ],
)
def test_other_files_bring_nothing_down(kind: str, count: int, tmp_path: Path) -> None:
    """Checkpoints of language models; arrays, pictures, labels and profiles."""
    if kind == "checkpoints":
        make_checkpoints(tmp_path)
    tally = Tally("")
    drive(kind, tmp_path, tally, until=count)
    assert not (tally.crashes or tally.hangs or tally.failures)
    assert tally.tried == count
    for outcome in ("ran", "refused at load"):
        assert tally.outcomes[outcome] > count // 20, tally.outcomes


@pytest.mark.parametrize("isa", [None, "avx2", "scalar"])
def test_sound_graphs_have_the_same_answers(
    isa: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On our kernels and on XNNPACK, whatever their attributes, ranges and sizes."""
    if isa is not None:
        monkeypatch.setenv("PENSTOCK_ISA", isa)
    tally = Tally("")
    drive("graphs", NOWHERE, tally, until=400)
    assert not (tally.crashes or tally.hangs or tally.failures)
    assert tally.tried == 400
    assert tally.outcomes["ran"] > 200, tally.outcomes


def test_crashes_hangs_and_failures_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "HANG", 0.5)
    tally = Tally("")
    drive("xnnpack", NOWHERE, tally, until=30, module="broken_worker")
    assert tally.crashes == [(7, signal.SIGSEGV)]
    assert tally.hangs == [12]
    assert [number for number, _ in tally.failures] == [20]
    assert tally.tried == 30


def test_tallies_are_kept(tmp_path: Path) -> None:
    tally = Tally("name", 500, crashes=[(7, 11)])
    tally.outcomes["ran"] += 3
    tally.save(tmp_path / "made" / "tally.json")
    kept = Tally.load(tmp_path / "made" / "tally.json")
    assert (kept.next, kept.outcomes, kept.tried) == (500, tally.outcomes, 4)


def test_cases_repeat_and_cover_every_field() -> None:
    seeds = corpus()
    assert digest(seeds) == digest(corpus())
    first, second = case(seeds, 123), case(corpus(), 123)
    assert first[1] == second[1]
    mutations = {case(seeds, number)[1].what for number in range(4000)}
    fields = {kind for seed in seeds for kind in seed.kinds}
    # Of two or three numbers that a mutation changes only the last names it.
    assert len(fields & mutations) > 0.9 * len(fields)

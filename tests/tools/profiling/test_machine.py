"""What the machine can do: measured once, kept, and measured again when asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.runtime.engines.native import library as native
from penstock.runtime.engines.native.isa import Isa
from penstock.tools.profiling import machine
from penstock.tools.profiling.machine import Peaks

PEAKS = Peaks("some processor", 2, 100e9, 400e9, 10e9, 100e9, 1 << 20)


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that were measured, in a cache folder of its own."""
    found: list[int] = []

    def measured(threads: int) -> Peaks:
        found.append(threads)
        return replace(PEAKS, threads=threads)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "cache_folder", lambda: tmp_path / "penstock")
    monkeypatch.setattr(machine, "measured", measured)
    return found


def test_measured_once(measurements: list[int]) -> None:
    assert machine.peaks(2) == machine.peaks(2) == PEAKS
    assert measurements == [2]
    machine.peaks(1)
    machine.peaks(2, anew=True)
    assert measurements == [2, 1, 2]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_cache_is_measured_again(
    measurements: list[int], tmp_path: Path, text: str
) -> None:
    machine.peaks(2)
    (file,) = (tmp_path / "penstock").iterdir()
    file.write_text(text)
    assert machine.peaks(2) == PEAKS and measurements == [2, 2]


def test_a_cache_that_cannot_be_written(
    measurements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cache_folder", lambda: Path("/dev/null/penstock"))
    assert machine.peaks(2) == PEAKS


def test_what_was_measured_on_a_busy_machine_is_measured_again_on_a_quiet_one(
    measurements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(threads: int) -> Peaks:
        measurements.append(threads)
        return replace(PEAKS, busy=True)

    monkeypatch.setattr(machine, "measured", measured)
    for busy, count in ((True, 1), (True, 1), (False, 2)):
        monkeypatch.setattr(machine, "is_busy", lambda busy=busy: busy)
        assert machine.peaks(2).busy
        assert len(measurements) == count


def test_the_roofline() -> None:
    # 1 MB fits into the cache.
    assert PEAKS.least_seconds(100e9, 1 << 20, int8=False) == pytest.approx(1.0)
    assert PEAKS.least_seconds(100e9, 1 << 20, int8=True) == pytest.approx(0.25)
    assert PEAKS.least_seconds(0, 1 << 20, int8=False) == pytest.approx((1 << 20) / 100e9)
    assert PEAKS.least_seconds(0, 10e9, int8=False) == pytest.approx(1.0)
    assert replace(PEAKS, fp32=None).least_seconds(1e9, 0, int8=False) == 0


def test_measuring() -> None:
    found = machine.measured(1)
    assert found.memory > 1e8 and found.cache > 1e8 and found.cache_bytes >= 1 << 15
    if native.reason_against() is None and Isa.AVX2 in native.shared_library().isa:
        assert found.fp32 is not None and found.int8 is not None
        # Another unit of work is done with integers in a step, not fewer.
        assert found.int8 > found.fp32 > 1e9
    else:
        assert found.fp32 is None and found.int8 is None


@pytest.mark.skipif(native.reason_against() is not None, reason="needs our own kernels")
def test_every_instruction_set_of_this_machine() -> None:
    for isa, name in (*machine._FP32, *machine._INT8):
        if isa in native.shared_library().detected:
            assert (machine.operations(((Isa.SCALAR, name),), 1) or 0) > 1e9

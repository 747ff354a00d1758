"""Files whose pages are given back, or not taken at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.runtime import mapped as under_test
from penstock.runtime.blocks import address
from penstock.runtime.mapped import drop_between, drop_files, file_of, take_rows
from penstock.runtime.sources import map_file

ROWS, WIDTH = 4096, 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "table"
    found.write_bytes(table().tobytes())
    return found


def table() -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, (ROWS, WIDTH)).astype(np.int8)


def mapped(path: Path, *, spare: bool) -> np.ndarray:
    return np.frombuffer(map_file(path, spare=spare), np.int8).reshape(ROWS, WIDTH)


def file_pages() -> int:
    """KiB of files in this process's memory."""
    return int(Path("/proc/self/status").read_text().split("RssFile:")[1].split()[0])


@pytest.mark.parametrize("spare", [False, True])
def test_rows_are_those_of_the_table(path: Path, spare: bool) -> None:
    found, numbers = mapped(path, spare=spare), np.random.default_rng(1)
    for where in (numbers.integers(0, ROWS, (1, 128)), np.array(7), np.zeros((0,), np.int64)):
        np.testing.assert_array_equal(take_rows(found, where), table()[where])
    # Half of each row, which is not contiguous; many rows; a small table.
    for part, count in ((found[:, ::2], 3), (found, 5000), (found[:8], 3)):
        where = numbers.integers(0, len(part), count)
        np.testing.assert_array_equal(take_rows(part, where), part[where])
    np.testing.assert_array_equal(take_rows(found[3:].view(np.uint8), np.array([5])),
                                  table()[[8]].view(np.uint8))  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_rows_take_no_pages(path: Path) -> None:
    found = mapped(path, spare=True)
    drop_files([found])
    before = file_pages()
    take_rows(found, np.arange(0, ROWS, 32))
    assert file_pages() - before < 256
    found[::32].sum()
    assert file_pages() - before > 1024
    drop_files([found, b"", None, memoryview(found)])
    assert file_pages() - before < 256


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="rows are not read")
def test_a_file_that_was_cut_short_is_an_error(path: Path) -> None:
    found = mapped(path, spare=True)
    os.truncate(path, 1 << 20)
    with pytest.raises(OSError, match="cut short"):
        take_rows(found, np.array([ROWS - 1]))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_the_file_is_closed_with_the_mapping(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    found = mapped(path, spare=True)
    assert file_of(found) is not None
    del found
    assert len(os.listdir("/proc/self/fd")) == before


def test_parts_of_a_file_are_given_back_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = mapped(path, spare=False), mapped(path, spare=False)
    given: list[tuple[int, int]] = []
    drop = under_test.drop

    def see(data: np.ndarray) -> None:
        given.append((address(data), data.nbytes))
        drop(data)

    monkeypatch.setattr(under_test, "drop", see)
    drop_between([first[300:310], np.ones(9, np.uint8), first[2:4], first[20:30], second[7:8]])
    assert given == [(address(first[2:]), 308 * WIDTH), (address(second[7:]), WIDTH)]
    for found in (first, second):
        np.testing.assert_array_equal(found, table())

"""Small products stay on one BLAS thread, and the setting is restored."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.runtime.kernels import blas


class Recorder:
    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.history: list[int] = []

    def get(self) -> int:
        return self.threads

    def set(self, threads: int) -> None:
        self.threads = threads
        self.history.append(threads)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(4)
    monkeypatch.setattr(blas, "_openblas", lambda: blas._OpenBlas(recorder.get, recorder.set))
    return recorder


def test_small_product_on_one_thread(recorder: Recorder) -> None:
    a, b = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
    np.testing.assert_array_equal(blas.matmul(a, b), np.full((3, 5), 4))
    assert recorder.history == [1, 4]


def test_restored_after_an_error(recorder: Recorder) -> None:
    with pytest.raises(ValueError):
        blas.matmul(np.ones((3, 4), np.float32), np.ones((3, 4), np.float32))
    assert recorder.threads == 4


def test_others_are_left_alone(recorder: Recorder) -> None:
    blas.matmul(np.ones((3, 4), np.int64), np.ones((4, 5), np.int64))
    large = np.ones((512, 512), np.float32)
    blas.matmul(large, large)
    recorder.threads = 1
    blas.matmul(np.ones((3, 4), np.float32), np.ones((4, 5), np.float32))
    assert recorder.history == []


def test_without_openblas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_openblas", lambda: None)
    assert blas.matmul(np.ones((1, 2), np.float32), np.ones((2, 1), np.float32)) == 2


def test_library_of_numpy_answers() -> None:
    found = blas._openblas()
    if found is None:
        pytest.skip("this NumPy has another BLAS")
    assert found.get_threads() >= 1

"""Signal to noise and differences."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.tools.agreement import (
    largest_difference,
    sqnr,
    worst_sqnr,
)


def test_known_ratios() -> None:
    signal = np.array([3.0, -4.0], np.float32)
    assert sqnr(signal, signal) == float("inf")
    assert sqnr(signal, signal * 1.1) == pytest.approx(20.0, abs=1e-4)
    assert sqnr(signal, signal * 1.01) == pytest.approx(40.0, abs=1e-3)
    assert sqnr(np.zeros(2), signal) == float("-inf")


def test_values_that_are_not_finite() -> None:
    mask = np.array([0.0, -np.inf])
    assert sqnr(mask, mask) == float("inf")
    assert sqnr(mask + 1, mask + 1.1) == pytest.approx(20)
    assert sqnr(np.ones(2), np.array([1.0, np.nan])) == float("-inf")


def test_differences() -> None:
    assert largest_difference(np.array([1, 5], np.int8), np.array([1, -5], np.int8)) == 10
    assert largest_difference(np.zeros(0), np.zeros(0)) == 0.0
    masked = np.array([-np.inf, 1.0])
    assert largest_difference(masked, masked + 0.5) == 0.5
    assert largest_difference(masked, np.zeros(2)) == np.inf


def test_worst_of_outputs_and_samples() -> None:
    one, labels = np.ones(4), np.arange(4)
    reference = [[one, labels], [one, labels]]
    assert worst_sqnr(reference, [[one, labels], [one * 1.1, labels]]) == pytest.approx(20)
    assert worst_sqnr(reference, [[one, labels], [one, labels + 1]]) == float("-inf")
    with pytest.raises(ValueError, match="shape"):
        worst_sqnr(reference, [[one[:3], labels], [one, labels]])

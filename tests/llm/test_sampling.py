"""Drawing tokens: each option alone against its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.llm.sampling import Options, Sampler, log_probability

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.07, 0.03], np.float32))


def drawn(options: Options, count: int = 4000, logits: np.ndarray = LOGITS) -> np.ndarray:
    sampler = Sampler(options)
    found = np.bincount([sampler(logits, ()) for _ in range(count)], minlength=len(logits))
    return found / count


def test_temperature_0_takes_the_likeliest() -> None:
    assert Sampler(Options())(LOGITS[::-1].copy(), ()) == 4


def test_temperature() -> None:
    for temperature in (1.0, 0.5, 2.0):
        wanted = np.exp(LOGITS / temperature)
        found = drawn(Options(temperature=temperature, seed=0))
        np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.03)


def test_top_k() -> None:
    found = drawn(Options(temperature=1.0, top_k=2, seed=0))
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 0, 0, 0], atol=0.03)


def test_top_p() -> None:
    found = drawn(Options(temperature=1.0, top_p=0.7, seed=0))
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 0, 0, 0], atol=0.03)
    assert drawn(Options(temperature=1.0, top_p=0.01, seed=0))[0] == 1


def test_min_p() -> None:
    found = drawn(Options(temperature=1.0, min_p=0.2, seed=0))
    np.testing.assert_allclose(found, np.array([0.5, 0.25, 0.15, 0, 0]) / 0.9, atol=0.03)


def test_repetition_penalty() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.1], np.float32)
    assert Sampler(Options(repetition_penalty=2.0))(logits, [0, 0]) == 1
    assert Sampler(Options(repetition_penalty=2.0))(logits[2:], [0, 7, -1]) == 1
    np.testing.assert_array_equal(logits, np.array([2.0, 1.5, -1.0, -1.1], np.float32))


@given(
    st.integers(0, 2**31), st.floats(0.05, 5), st.floats(0.05, 1), st.integers(0, 50),
    st.floats(0, 0.9),
)  # fmt: skip
def test_only_the_nucleus(seed: int, heat: float, top_p: float, top_k: int, min_p: float) -> None:
    """Whatever the options: a token that the definitions leave in, found by sorting all."""
    logits = np.random.default_rng(seed).normal(size=40).astype(np.float32) * 3
    options = Options(temperature=heat, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed)
    token = Sampler(options)(logits, ())
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    weights = np.exp((logits[order].astype(np.float64) - logits.max()) / heat)
    order, weights = order[weights >= min_p], weights[weights >= min_p]
    before = np.cumsum(weights) - weights
    assert token in order[before <= top_p * weights.sum() * (1 + 1e-9)]


def test_log_probability() -> None:
    np.testing.assert_allclose(log_probability(LOGITS + 5, 1), np.log(0.25), atol=1e-6)

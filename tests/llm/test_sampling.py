"""Drawing tokens: each option alone against its definition."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InputError
from penstock.llm.sampling import Options, Sampler, likeliest, log_probability
from penstock.zoo.libraries import require

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
    before = np.cumsum(weights) - weights
    nucleus = before <= top_p * weights.sum() * (1 + 1e-9)
    assert token in order[nucleus & (weights >= min_p)]


def test_the_distribution_of_transformers() -> None:
    """After its processors, in their order; they are given float64, as rounding decides about a
    token at a border."""
    for seed in range(300):
        draw = np.random.default_rng(seed)
        logits = draw.normal(size=int(draw.integers(2, 400))) * draw.choice([0.5, 2, 6])
        context = draw.integers(0, len(logits), 20)
        numbers = (draw.uniform(0.1, 3), draw.choice([0, 2, 5, 40, 1000]))
        shares = (draw.choice([1, 0.95, 0.7, 0.3, 0.01]), draw.choice([0, 0.05, 0.3]))
        options = Options(
            temperature=float(numbers[0]), top_k=int(numbers[1]), top_p=float(shares[0]),
            min_p=float(shares[1]), repetition_penalty=float(draw.choice([1, 1.3, 0.8])),
        )  # fmt: skip
        found = np.zeros(len(logits))
        tokens, weights = likeliest(logits, context, options)
        found[tokens] = weights / weights.sum()
        wanted = processed(logits, context, options)
        np.testing.assert_allclose(found, wanted, atol=1e-9, err_msg=f"{seed}: {options}")


def processed(logits: np.ndarray, context: np.ndarray, options: Options) -> np.ndarray:
    process = require("transformers").generation.logits_process
    chain = [
        process.RepetitionPenaltyLogitsProcessor(options.repetition_penalty),
        process.TemperatureLogitsWarper(options.temperature),
    ]
    if options.top_k:
        chain.append(process.TopKLogitsWarper(options.top_k))
    if options.top_p < 1:
        chain.append(process.TopPLogitsWarper(options.top_p))
    if options.min_p:
        chain.append(process.MinPLogitsWarper(options.min_p))
    scores = torch.from_numpy(logits)[None]
    for one in chain:
        scores = one(torch.from_numpy(context)[None], scores)
    found: np.ndarray = torch.softmax(scores, -1)[0].numpy()
    return found


def test_as_likely_as_the_last_one_stays() -> None:
    """As in transformers: which of them a sort puts last means nothing."""
    logits = np.array([1.0, 3.0, 1.0, 2.0, 1.0], np.float32)
    tokens, _ = likeliest(logits, (), Options(temperature=1.0, top_k=3))
    assert tokens.tolist() == [0, 1, 2, 3, 4]
    tokens, _ = likeliest(logits, (), Options(temperature=1.0, top_k=2))
    assert tokens.tolist() == [1, 3]


def test_next_to_no_temperature_is_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for temperature in (1e-30, 5e-324):
            assert Sampler(Options(temperature=temperature, seed=0))(LOGITS[::-1].copy(), ()) == 4


def test_what_is_no_integer() -> None:
    for options in ({"top_k": 2.5}, {"top_k": None}, {"max_tokens": 1.0}, {"seed": "1"}):
        with pytest.raises(InputError, match="it must be an integer"):
            Options(**options)  # type: ignore[arg-type]
    Options(top_k=np.int64(3), max_tokens=None)


def test_log_probability() -> None:
    np.testing.assert_allclose(log_probability(LOGITS + 5, 1), np.log(0.25), atol=1e-6)

"""What a decoder's layers do between their products, at every instruction set of this machine."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import ISAS, THREADS, guarded, numbers

from penstock.graph.graph import XnnGraph
from penstock.runtime.blocks import address
from penstock.runtime.engines.native import decoder
from penstock.runtime.engines.native.families import bind_families
from penstock.runtime.engines.native.library import Library, open_library, shared_library
from penstock.runtime.engines.native.plan import pool_of

HIDDEN = np.float32(-1e9)


def library(isa: str) -> Library:
    found = open_library(shared_library().path, isa)
    bind_families(found)
    return found


def run(isa: str, function: str, task: ctypes.Structure, threads: int = 1) -> None:
    pool = pool_of(THREADS[threads])
    getattr(library(isa).functions, function)(ctypes.byref(task), ctypes.byref(pool))


def attended(q: Any, k: Any, v: Any, mask: Any, factor: float, cap: float) -> np.ndarray:
    """The answer in float64; queries [heads, tokens, size], keys and values [heads, rows, size].
    What the mask hides is so far away that float32 sees no difference in it."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) * factor
    scores = (np.tanh(scores) * cap if cap else scores) + mask
    scores = np.where(mask <= HIDDEN / 2, np.float64(HIDDEN), scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ v)


def check_attention(seed: int) -> None:
    draw = random.Random(seed)
    tokens = draw.choice([1, 1, 2, 7, 16, 17, 33])
    key_heads, group = draw.choice([1, 2, 3]), draw.choice([1, 2, 3, 4])
    size, old = draw.choice([16, 32, 48, 64, 80, 128]), draw.choice([1, 4, 15, 16, 40, 100])
    heads, start = key_heads * group, draw.randint(0, old)
    query = numbers((tokens, heads, size), seed)
    keys, new_keys = (
        numbers((key_heads, old, size), seed + 1),
        numbers((tokens, key_heads, size), seed + 2),
    )
    values, new_values = (
        numbers((key_heads, old, size), seed + 3),
        numbers((key_heads, tokens, size), seed + 4),
    )
    mask = np.zeros((tokens, old + tokens), np.float32)
    mask[:, start:old] = HIDDEN  # rows that nobody wrote as yet
    mask[:, old:][np.triu_indices(tokens, 1)] = HIDDEN
    if draw.random() < 0.3:
        mask[:, : start // 2] = HIDDEN  # a window
    if draw.random() < 0.3:
        mask += numbers(mask.shape, seed + 5)
    if draw.random() < 0.1:
        mask[draw.randrange(tokens)] = HIDDEN  # sees nothing
    keys[:, start:] = np.nan if draw.random() < 0.5 else 1.0
    values[:, start:] = 0
    rows = draw.choice([1, group])
    given_mask = np.tile(mask, (rows, 1)) if rows > 1 else mask
    factor, cap = size**-0.5, draw.choice([0.0, 0.0, 3.0])
    scales: list[np.ndarray] = []
    old_keys, old_values = keys, values
    if draw.random() < 0.4:  # a cache of int8
        keys, values = np.nan_to_num(keys), np.nan_to_num(values)
        scales = [np.abs(x).max(-1) / 127 + np.float32(1e-9) for x in (keys, values)]
        old_keys, old_values = (
            np.rint(x / scale[..., None]).astype(np.int8)
            for x, scale in zip((keys, values), scales, strict=True)
        )
        keys, values = (
            x.astype(np.float32) * scale[..., None]
            for x, scale in zip((old_keys, old_values), scales, strict=True)
        )
        scales[0][:, start:] = np.nan if draw.random() < 0.5 else 1.0
    every = np.concatenate([np.nan_to_num(keys), new_keys.transpose(1, 0, 2)], 1)
    all_values = np.concatenate([values, new_values], 1)
    wanted = attended(
        query.transpose(1, 0, 2),
        np.repeat(every, group, 0),
        np.repeat(all_values, group, 0),
        mask,
        factor,
        cap,
    ).transpose(1, 0, 2)
    if (mask <= -1e8).all(1).any():
        old_keys = np.nan_to_num(old_keys) if not scales else old_keys
        scales = [np.nan_to_num(scale, nan=1.0) for scale in scales]
        if scales:
            return  # what lies behind rows that nobody wrote would count here
    output = np.zeros(query.shape, np.float32)
    arrays = [query, old_keys, new_keys, old_values, new_values, given_mask, *scales, output]
    names = ["query", "old_keys", "new_keys", "old_values", "new_values", "mask"]
    names += ["key_scales", "value_scales"][: len(scales)] + ["output"]
    for isa in ISAS:
        for threads in (1, 2):
            task = decoder.CAttention(
                int(library(isa).isa), factor, cap, tokens, key_heads, group, size, old,
                len(given_mask), threads,
            )  # fmt: skip
            need = library(isa).functions.pk_f32_attention_scratch_size(ctypes.byref(task))
            scratch = np.zeros(need + 64, np.uint8)
            with guarded(arrays) as copies:
                for name, array in zip(names, copies, strict=True):
                    setattr(task, name, address(array))
                task.scratch = -(-address(scratch) // 64) * 64
                run(isa, "pk_f32_attention_run", task, threads)
                found = copies[-1].copy()
            assert not scratch[-64 + (-address(scratch) % 64) :].any() or need % 64
            np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4, err_msg=f"{isa} {seed}")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_attention(seed: int) -> None:
    check_attention(seed)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [1, 5, 16, 63, 64, 67, 576])
@pytest.mark.parametrize("layer", [False, True])
def test_norm(isa: str, channels: int, layer: bool) -> None:
    x, weight = numbers((3, channels), channels) + 2, numbers((channels,), 7)
    bias = numbers((channels,), 8)
    with guarded([x, weight, bias, np.zeros_like(x)]) as (
        given_x,
        given_weight,
        given_bias,
        output,
    ):
        task = decoder.CNorm(
            int(library(isa).isa), 1e-5, 3, channels, address(given_weight),
            address(given_bias) if layer else None, address(given_x), address(output),
        )  # fmt: skip
        run(isa, "pk_f32_norm_run", task)
        real = x.astype(np.float64)
        if layer:
            real -= real.mean(-1, keepdims=True)
        wanted = real / np.sqrt((real**2).mean(-1, keepdims=True) + 1e-5) * weight
        wanted += bias if layer else 0
        np.testing.assert_allclose(output, wanted, rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", [1, 3, 16, 31, 1000])
def test_gate(isa: str, count: int) -> None:
    a, b = numbers((count,), 1) * 30, numbers((count,), 2)
    a[:2] = [-200.0, 200.0][: len(a[:2])]
    with guarded([a, b, np.zeros_like(a)]) as (given_a, given_b, output):
        real = a.astype(np.float64)
        for cubic, linear in ((0.0, 1.0), (0.0713548, 1.5957691)):  # SiLU, and GELU by tanh
            task = decoder.CGate(
                int(library(isa).isa), cubic, linear, count,
                address(given_a), address(given_b), address(output),
            )  # fmt: skip
            run(isa, "pk_f32_gate_run", task)
            inner = np.clip(real * (np.float32(cubic) * real**2 + np.float32(linear)), -700, 700)
            wanted = real / (1 + np.exp(-inner)) * b
            np.testing.assert_allclose(output, wanted, rtol=1e-5 if cubic else 1e-6, atol=1e-30)


@pytest.mark.parametrize("rows", [1, 5])
def test_turn_and_heads(rows: int) -> None:
    heads, half = 3, 9
    x, cosine, sine = (numbers((rows, h, 2 * half), h) for h in (heads, 1, 1))
    with guarded([x, cosine, sine, np.zeros_like(x)]) as arrays:
        task = decoder.CTurn(rows, heads, half, *(address(arrays[i]) for i in (1, 2, 0, 3)))
        run("scalar", "pk_f32_turn_run", task)
        swapped = np.concatenate([x[..., half:], x[..., :half]], -1)
        np.testing.assert_allclose(arrays[3], x * cosine + swapped * sine, rtol=1e-6, atol=1e-6)
    by_head = np.zeros((heads, rows, 2 * half), np.float32)
    with guarded([x, by_head]) as (given_x, output):
        size = 2 * half * x.itemsize
        moved = decoder.CHeads(rows, heads, size, address(given_x), address(output))
        run("scalar", "pk_f32_heads_run", moved)
        np.testing.assert_array_equal(output, x.transpose(1, 0, 2))


def test_exponentials_are_close_enough() -> None:
    """By the gate of 1: sigmoid."""
    x = np.linspace(-86, 86, 4096, dtype=np.float32)
    one, output = np.ones_like(x), np.zeros_like(x)
    for isa in ISAS:
        task = decoder.CGate(
            int(library(isa).isa), 0.0, 1.0, x.size, address(x), address(one), address(output)
        )
        run(isa, "pk_f32_gate_run", task)
        real = x.astype(np.float64)
        wanted = real / (1 + np.exp(-real))
        error = np.abs(output - wanted) / np.maximum(np.abs(wanted), 1e-37)
        assert error.max() < 4e-7


def test_a_graph_without_attention_over_a_cache_has_no_chains() -> None:
    from penstock.runtime.engines.native.chains import Pattern
    from penstock.runtime.engines.native.decoder_chains import decoder_chains

    assert decoder_chains(Pattern(XnnGraph(), {})) == []


def test_shapes_that_do_not_fit_are_an_error() -> None:
    import penstock

    gate = decoder.Gate(0, 1, 2, 0.0, 1.0, None)  # type: ignore[arg-type]
    with pytest.raises(penstock.InputError, match="do not fit"):
        gate.step({0: (2, 3), 1: (1, 3), 2: (2, 3)})
    attention = decoder.Attention(0, 1, 2, 3, 4, 5, 6, 1.0)
    shapes = {
        0: (1, 2, 4, 16), 1: (1, 2, 8, 16), 2: (1, 2, 2, 16), 3: (1, 2, 8, 16), 4: (1, 2, 2, 16),
        5: (2, 10), 6: (1, 2, 64),
    }  # fmt: skip
    assert attention.fits(shapes)
    for key, wrong in {
        0: (1, 2, 3, 16), 1: (1, 2, 9, 16), 2: (1, 3, 2, 16), 4: (1, 1, 2, 16), 5: (2, 11),
    }.items():  # fmt: skip
        assert not attention.fits({**shapes, key: wrong})

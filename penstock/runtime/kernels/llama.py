"""The operators of the stock flow's language models: caches of keys and values, and attention over
them (``extension/llm/custom_ops`` of ExecuTorch 1.5.1)."""

from __future__ import annotations

import math

import numpy as np

from penstock.runtime.kernels.blas import matmul
from penstock.runtime.kernels.common import Array, is_float, rounded, widened
from penstock.runtime.kernels.registry import KernelError, kernel


@kernel("llama::update_cache.out", writes=(1,))
def update_cache(value: Array, cache: Array, start: int, out: Array) -> Array:
    """Writes rows [1, count, heads, size] into a cache [1, rows, heads, size] from ``start`` on.
    What it returns has no meaning."""
    _check_rows(value, cache, start)
    cache[:, start : start + value.shape[1]] = value
    return out


@kernel("llama::update_cache_with_indices.out", writes=(1,))
def update_cache_with_indices(
    value: Array, cache: Array, start: int, indices: Array, out: Array
) -> Array:
    """As ``update_cache``, each row at its own place: ``indices`` [1, count]."""
    if indices.shape != (cache.shape[0], value.shape[1]) or indices.dtype.kind != "i":
        raise KernelError(f"indices of shape {indices.shape} for {value.shape[1]} rows")
    if cache.ndim != 4 or value.shape[2:] != cache.shape[2:] or value.dtype != cache.dtype:
        raise KernelError(f"rows {value.dtype} {value.shape} for a cache {cache.shape}")
    if indices.size and (indices.min() < 0 or indices.max() >= cache.shape[1]):
        raise KernelError(f"a row outside of 0..{cache.shape[1] - 1}")
    for batch, places in enumerate(indices):
        cache[batch, places] = value[batch]
    return out


@kernel("llama::custom_sdpa.out")
def custom_sdpa(
    query: Array,
    key: Array,
    value: Array,
    start: int,
    mask: Array | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    out: Array,
) -> Array:
    """Attention of [1, count, heads, size] over a cache [1, rows, key heads, size].

    The first ``start + count`` rows are seen; with a mask [count, rows] all of them.
    """
    count, seen = query.shape[1] if query.ndim == 4 else 0, key.shape[1] if key.ndim == 4 else 0
    if mask is None:
        if not 0 <= start <= seen - count:
            raise KernelError(f"{count} rows at {start} of a cache of {seen}")
        seen = start + count
    elif causal:
        raise KernelError("a mask and is_causal together")
    return _attend(query, key, value, seen, start, mask, bool(causal), scale)


@kernel("llama::sdpa_with_kv_cache.out", writes=(3, 4))
def sdpa_with_kv_cache(
    query: Array,
    key: Array,
    value: Array,
    keys: Array,
    values: Array,
    start: int,
    length: int,
    mask: Array | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    out: Array,
) -> Array:
    """Both at once: writes keys and values into their caches, and attends over these."""
    for rows, cache in ((key, keys), (value, values)):
        _check_rows(rows, cache, start)
        cache[:, start : start + rows.shape[1]] = rows
    if mask is not None:
        mask = mask[:, : start + length]
    return _attend(query, keys, values, start + length, start, mask, bool(causal), scale)


def _check_rows(value: Array, cache: Array, start: int) -> None:
    if value.ndim != 4 or cache.ndim != 4 or value.dtype != cache.dtype:
        raise KernelError(f"rows {value.dtype} {value.shape} for a cache {cache.shape}")
    if value.shape[0] != cache.shape[0] or value.shape[2:] != cache.shape[2:]:
        raise KernelError(f"rows of shape {value.shape} for a cache of {cache.shape}")
    if not 0 <= start <= cache.shape[1] - value.shape[1]:
        raise KernelError(f"{value.shape[1]} rows at {start} of a cache of {cache.shape[1]}")


def _attend(
    query: Array, key: Array, value: Array, seen: int, start: int, mask: Array | None,
    causal: bool, scale: float | None,
) -> Array:  # fmt: skip
    _check_attention(query, key, value, seen)
    batch, count, heads, size = query.shape
    shared = key.shape[2]
    group = heads // shared
    factor = 1.0 / math.sqrt(size) if scale is None else float(scale)
    wide = widened(query, query.dtype) * np.asarray(factor, widened(query, query.dtype).dtype)
    # Queries that share a key beside each other: [batch, key heads, group * count, size].
    grouped = wide.reshape(batch, count, shared, group, size).transpose(0, 2, 3, 1, 4)
    grouped = np.ascontiguousarray(grouped).reshape(batch, shared, group * count, size)
    keys = widened(key[:, :seen], key.dtype).transpose(0, 2, 3, 1)
    values = widened(value[:, :seen], value.dtype).transpose(0, 2, 1, 3)
    scores = np.asarray(matmul(grouped, keys)).reshape(batch, shared, group, count, seen)
    if mask is not None:
        if mask.ndim != 2 or mask.shape[0] < count or mask.shape[1] < seen:
            raise KernelError(f"a mask of shape {mask.shape} for [{count}, {seen}] scores")
        scores = scores + widened(mask, mask.dtype)[:count, :seen]
    elif causal and count > 1:
        hidden = np.arange(seen)[None] > start + np.arange(count)[:, None]
        scores[..., hidden] = -np.inf
    largest = scores.max(-1, keepdims=True)
    scores = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    total = scores.sum(-1, keepdims=True)
    scores /= np.where(total > 0, total, 1)
    result = np.asarray(matmul(scores.reshape(batch, shared, group * count, seen), values))
    result = result.reshape(batch, shared, group, count, size).transpose(0, 3, 1, 2, 4)
    return rounded(result.reshape(batch, count, heads, size), query.dtype)


def _check_attention(query: Array, key: Array, value: Array, seen: int) -> None:
    if not (query.ndim == key.ndim == value.ndim == 4) or key.shape != value.shape:
        raise KernelError(f"attention of {query.shape} over {key.shape} and {value.shape}")
    if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        raise KernelError(f"attention of {query.shape} over {key.shape}")
    if not key.shape[2] or query.shape[2] % key.shape[2]:
        raise KernelError(f"{query.shape[2]} heads on {key.shape[2]}")
    if not is_float(query.dtype) or not 0 < seen <= key.shape[1] or not query.shape[3]:
        raise KernelError(f"attention of {query.dtype} over {seen} of {key.shape[1]} rows")

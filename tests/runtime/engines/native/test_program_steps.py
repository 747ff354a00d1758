"""Steps in place of kernels beside the kernels themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.engines.native import library
from penstock.runtime.engines.native.families import bind_families
from penstock.runtime.engines.native.program_steps import (
    Group,
    moved,
    scaled_rows,
    steps_for,
    write_rows,
)
from penstock.runtime.kernels import registry

pytestmark = pytest.mark.skipif(
    library.reason_against() is not None, reason="there are no kernels here"
)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 9)


def group(steps: Any) -> Group:
    shared = library.shared_library()
    bind_families(shared)
    assert steps is not None
    return Group(shared, steps)


def check(name: str, args: list[Any], out: np.ndarray) -> None:
    """The step gives what the kernel gives."""
    found = registry.find(name)
    assert found is not None
    wanted = np.asarray(found.function(*args, out.copy()))
    assert group(steps_for(name, args, out))()
    assert out.shape == wanted.shape and out.dtype == wanted.dtype
    np.testing.assert_array_equal(out, wanted)


@given(SEEDS, SIZES, SIZES, SIZES, st.sampled_from([np.float32, np.int64, np.int8]))
def test_index_select(seed: int, rows: int, columns: int, count: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-99, 99, (rows, columns, 3)).astype(kind)
    for axis in (0, 1, -1):
        index = rng.integers(0, x.shape[axis], count)
        shape = list(x.shape)
        shape[axis] = count
        check("aten::index_select.out", [x, axis, index], np.empty(shape, kind))


@given(SEEDS, st.integers(0, 6), st.sampled_from([np.int8, np.int16, np.float32, np.int64]))
def test_what_moves(seed: int, rank: int, kind: Any) -> None:
    """Parts, other orders, repeated dimensions, however both lie in memory; nothing beside them."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(-99, 99, rng.integers(1, 5, rank)).astype(kind)
    source = whole
    for axis in range(rank):
        step = int(rng.choice([1, 1, 2, -1]))
        source = source[(slice(None),) * axis + (slice(None, None, step),)]
        if source.shape[axis] == 1 and rng.random() < 0.5:
            shape = list(source.shape)
            shape[axis] = 3
            source = np.broadcast_to(source, shape)
    source = source.transpose(rng.permutation(rank))
    room = np.full([*(n + 1 for n in source.shape), 2], 7, kind)
    order = [*rng.permutation(rank), rank]
    place = room.transpose(np.argsort(order)).copy().transpose(order)
    out = place[(*(slice(n) for n in source.shape), 0, ...)]
    wanted = place.copy()
    wanted[(*(slice(n) for n in source.shape), 0)] = source
    assert group((moved(source, out),))()
    np.testing.assert_array_equal(place, wanted)


@given(SEEDS, st.lists(SIZES, min_size=1, max_size=4), st.integers(-3, 2))
def test_cat(seed: int, sizes: list[int], axis: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = [[size if n == axis % 3 else n + 2 for n in range(3)] for size in sizes]
    parts = [rng.random(shape, np.float32) for shape in shapes]
    check("aten::cat.out", [parts, axis], np.concatenate(parts, axis) * 0)


@given(SEEDS, SIZES, SIZES, SIZES)
def test_embeddings(seed: int, rows: int, columns: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, rows, (1, count))
    table, scales = rng.integers(-128, 128, (rows, columns), np.int8), rng.random(rows, np.float32)
    out = np.empty((1, count, columns), np.float32)
    wide = table.astype(np.float32)
    check("aten::embedding.out", [wide, index, -1, False, False], out)
    name = "quantized_decomposed::embedding_byte.out"
    for form in (scales, scales[:, None]):
        check(name, [table, form, None, -128, 127, index], out)
    wanted = out.copy()
    out[...] = 0
    step = scaled_rows(table[index[0]], scales, None, index, out, picks=False)
    assert group([step])()
    np.testing.assert_array_equal(out, wanted)


@given(SEEDS, SIZES, SIZES, st.sampled_from([(), (1,), None]))
def test_index_put(seed: int, size: int, count: int, form: Any) -> None:
    rng = np.random.default_rng(seed)
    x, index = rng.random(size, np.float32), rng.integers(0, size, count)
    value = rng.random((count,) if form is None else form, np.float32)
    check("aten::index_put.out", [x, [index], value, False], np.empty(size, np.float32))


@given(SEEDS, SIZES, SIZES, st.sampled_from(["lt", "le", "gt", "ge", "eq"]))
def test_comparisons(seed: int, rows: int, columns: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-3, 3, columns), rng.integers(-3, 3, (rows, 1))
    out = np.empty((rows, columns), np.bool_)
    check(f"aten::{name}.Tensor_out", [a, b], out)
    check(f"aten::{name}.Scalar_out", [a, 1], np.empty(columns, np.bool_))
    other = rng.integers(0, 2, columns).astype(np.bool_)
    check("aten::logical_and.out", [out.copy(), other], np.empty_like(out))
    check("aten::bitwise_and.Tensor_out", [other, out.copy()], np.empty_like(out))
    x, y = rng.random((), np.float32), rng.random((rows, 1), np.float32)
    check("aten::where.self_out", [out.copy(), x, y], np.empty((rows, columns), np.float32))


@given(SEEDS, SIZES, SIZES, st.integers(-9, 9))
def test_sums(seed: int, rows: int, columns: int, alpha: int) -> None:
    rng = np.random.default_rng(seed)
    kind = np.iinfo(np.int64)
    a = rng.integers(kind.min, kind.max, (rows, 1))
    b = rng.integers(kind.min, kind.max, (columns,))
    for name in ("add", "sub"):
        check(f"aten::{name}.out", [a, b, alpha], np.empty((rows, columns), np.int64))
        check(f"aten::{name}.Scalar_out", [a, 5, alpha], np.empty((rows, 1), np.int64))


@given(SEEDS, SIZES, SIZES, SIZES)
def test_rows_of_several_targets(seed: int, outer: int, size: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, size, count)
    kinds = (np.float32, np.int8, np.float32)
    targets = [rng.integers(-99, 99, (outer, size, n)).astype(k) for n, k in enumerate(kinds, 1)]
    pairs = [
        (t, rng.integers(-99, 99, (outer, count, t.shape[2])).astype(t.dtype)) for t in targets
    ]
    wanted = [t.copy() for t in targets]
    for one, (_, source) in zip(wanted, pairs, strict=True):
        for i, place in enumerate(index):
            one[:, place] = source[:, i]
    assert group([write_rows(pairs, 1, index)])()
    for found, one in zip(targets, wanted, strict=True):
        np.testing.assert_array_equal(found, one)


@pytest.mark.parametrize("wrong", [-1, 4, 1 << 62, -(1 << 63)])
def test_what_is_out_of_range_writes_nothing(wrong: int) -> None:
    index = np.array([1, wrong])
    large, small = np.ones((1, 5, 2), np.float32), np.ones((1, 4, 2), np.float32)
    new = np.zeros((1, 2, 2), np.float32)
    assert not group([write_rows([(large, new), (small, new)], 1, index)])()
    assert large.all() and small.all()
    out = np.ones((2, 3), np.float32)
    table = np.zeros((4, 3), np.float32)
    assert not group(steps_for("aten::index_select.out", [table, 0, index], out))()
    bytes_, scales = np.zeros((4, 3), np.int8), np.zeros(4, np.float32)
    args = [bytes_, scales, None, -128, 127, index]
    assert not group(steps_for("quantized_decomposed::embedding_byte.out", args, out))()
    assert out.all()


def test_what_has_no_step() -> None:
    x, out = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    index = np.zeros(3, np.int64)
    assert steps_for("aten::mul.out", [x, x], out) is None
    assert steps_for("aten::embedding.out", [x, index.astype(np.int32)], out) is None
    assert steps_for("aten::embedding.out", [x, index], np.ones((3, 5), np.float32)) is None
    assert steps_for("aten::embedding.out", [x.T.copy().T, index], out) is None
    assert steps_for("aten::index_select.out", [x, 2, index], out) is None
    assert steps_for("aten::le.Tensor_out", [x, x], np.ones((3, 4), np.bool_)) is None
    assert steps_for("aten::le.Tensor_out", [index, index], np.ones((2, 4), np.bool_)) is None
    assert steps_for("aten::where.self_out", [x, x, x], out) is None
    assert steps_for("aten::index_put.out", [x, [index], x[0], False], out) is None
    assert write_rows([(x, x)], 0, index[:2]) is None
    wide = np.ones((3, 4), np.float64)
    assert write_rows([(x, wide)], 0, index) is None
    assert moved(x, wide) is None and moved(x, out[:2]) is None and moved(x, x[::-1]) is None
    assert steps_for("aten::cat.out", [[x, x], 0], out) is None
    assert steps_for("aten::cat.out", [[x[0], x], 0], out) is None
    assert steps_for("aten::cat.out", [[], 0], out) is None

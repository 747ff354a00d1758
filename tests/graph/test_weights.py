"""Weights of every format: what they stand for, cut, scaled and packed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor
from penstock.graph.graph import Value
from penstock.graph.weights import (
    WeightFormatError,
    bfloat16_to_float,
    float_to_bfloat16,
    integers,
    packed,
    real,
    scaled,
    selected,
)

ROWS, WIDTH, BLOCK = 6, 64, 32


def floats(rng: np.random.Generator) -> Value:
    data = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    return Value(0, DataType.FP32, data.shape, None, data)


def per_tensor(rng: np.random.Generator) -> Value:
    data = rng.integers(-128, 128, (ROWS, WIDTH)).astype(np.int8)
    return Value(0, DataType.QINT8, data.shape, PerTensor(0.25, 3), data)


def per_channel(rng: np.random.Generator) -> Value:
    data = rng.integers(-128, 128, (ROWS, WIDTH)).astype(np.int8)
    scales = rng.uniform(0.1, 1, ROWS).astype(np.float32)
    return Value(0, DataType.QCINT8, data.shape, PerChannel(scales, 0), data)


def four_bits(rng: np.random.Generator) -> Value:
    data = packed(rng.integers(-8, 8, (ROWS, WIDTH)).astype(np.int8), DataType.QCINT4)
    scales = rng.uniform(0.1, 1, ROWS).astype(np.float32)
    return Value(0, DataType.QCINT4, (ROWS, WIDTH), PerChannel(scales, 0), data)


def blocks(rng: np.random.Generator) -> Value:
    data = packed(rng.integers(-8, 8, (ROWS, WIDTH)).astype(np.int8), DataType.QBINT4)
    scales = float_to_bfloat16(rng.uniform(0.1, 1, ROWS * WIDTH // BLOCK).astype(np.float32))
    return Value(0, DataType.QBINT4, (ROWS, WIDTH), Blockwise(scales, 0, BLOCK), data)


FORMATS = [floats, per_tensor, per_channel, four_bits, blocks]
Make = Callable[[np.random.Generator], Value]


@pytest.mark.parametrize("make", FORMATS)
@given(seed=st.integers(0, 99), data=st.data())
def test_selected_rows_stand_for_the_same_numbers(
    make: Make, seed: int, data: st.DataObject
) -> None:
    weight = make(np.random.default_rng(seed))
    rows = np.array(data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=8)))
    cut = selected(weight, rows)
    assert cut.shape == (len(rows), WIDTH) and cut.dtype is weight.dtype
    np.testing.assert_array_equal(real(cut), real(weight)[rows])


@pytest.mark.parametrize("make", [floats, per_channel])
@given(seed=st.integers(0, 99))
def test_scaled_weights(make: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = make(rng)
    factor = rng.uniform(0.1, 4, ROWS).astype(np.float32)
    product = scaled(weight, factor, 0)
    assert product is not None
    np.testing.assert_allclose(real(product), real(weight) * factor[:, None], rtol=1e-6)
    assert np.asarray(product.data).dtype == np.asarray(weight.data).dtype


@pytest.mark.parametrize("make", [per_tensor, per_channel, four_bits, blocks])
def test_factors_that_a_format_cannot_hold(make: Make) -> None:
    weight = make(np.random.default_rng(0))
    assert scaled(weight, np.array([-1.0], np.float32), 0) is None
    along_columns = np.full(WIDTH, 2.0, np.float32)
    assert scaled(weight, along_columns, 1) is None


def test_blocks_and_single_scales() -> None:
    rng = np.random.default_rng(0)
    assert scaled(blocks(rng), np.array([0.3], np.float32), 0) is None
    product = scaled(per_tensor(rng), np.array([0.5], np.float32), 0)
    assert product is not None and product.quantization == PerTensor(0.125, 3)
    assert scaled(per_tensor(rng), np.full(ROWS, 0.5, np.float32), 0) is None


@pytest.mark.parametrize("make", FORMATS)
@given(seed=st.integers(0, 99))
def test_packing_is_the_inverse_of_unpacking(make: Make, seed: int) -> None:
    weight = make(np.random.default_rng(seed))
    elements = integers(weight)
    assert elements.shape == weight.shape
    again = packed(elements, weight.dtype)
    np.testing.assert_array_equal(again.reshape(-1), np.asarray(weight.data).reshape(-1))


@pytest.mark.parametrize("make", FORMATS)
def test_bytes_are_read_as_arrays_are(make: Make) -> None:
    weight = make(np.random.default_rng(1))
    raw = Value(
        0, weight.dtype, weight.shape, weight.quantization, np.asarray(weight.data).tobytes()
    )
    np.testing.assert_array_equal(real(raw), real(weight))


def test_what_has_no_form() -> None:
    weight = per_channel(np.random.default_rng(0))
    assert isinstance(weight.quantization, PerChannel)
    weight.quantization = PerChannel(np.ones(WIDTH, np.float32), 1)
    with pytest.raises(WeightFormatError, match="dimension 1"):
        selected(weight, np.array([0]))
    with pytest.raises(WeightFormatError, match="even width"):
        packed(np.zeros((2, 3), np.int8), DataType.QCINT4)
    with pytest.raises(WeightFormatError, match="no constant"):
        integers(Value(7, DataType.FP32, (1,)))


def test_bfloat16_rounds_to_even() -> None:
    torch = pytest.importorskip("torch")
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    numbers[:3] = [1.00390625, 1.01171875, 0.0]  # halves between two bfloat16 numbers
    expected = torch.from_numpy(numbers).to(torch.bfloat16)
    found = bfloat16_to_float(float_to_bfloat16(numbers))
    np.testing.assert_array_equal(found, expected.to(torch.float32).numpy())

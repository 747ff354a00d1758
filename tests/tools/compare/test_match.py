"""Which values are compared, and how they are turned."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.formats.sources import Origin
from penstock.tools.compare.match import Pair, in_layout_of, matched
from penstock.tools.compare.taps import Tap

GENERATOR = np.random.default_rng(0)


def tap(module: str, operator: str, array: np.ndarray, user: int | None = None) -> Tap:
    return Tap(Origin(module, "", operator), operator or "add", "fp32", array, user=user)


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 4, 4, 4), (1, 6, 1, 3), (2, 3, 4, 5, 6)])
def test_images_are_turned(shape: tuple[int, ...]) -> None:
    image = GENERATOR.standard_normal(shape)
    turned = np.moveaxis(image, 1, -1)
    found = in_layout_of(image, turned)
    assert found is not None and np.array_equal(found, image)


def test_dimensions_of_size_one_and_joined_ones() -> None:
    value = GENERATOR.standard_normal((1, 6, 4))
    for other in (value[0], value[:, :, None], value.reshape(24), value.reshape(2, 3, 4)):
        found = in_layout_of(value, other)
        assert found is not None and np.array_equal(found, value)
    assert in_layout_of(value, value[:, :5]) is None


def test_operators_of_a_module_in_order() -> None:
    x, y, z = (GENERATOR.standard_normal(4) for _ in range(3))
    a = [tap("m", "add", x), tap("m", "mul", y), tap("m", "add", z)]
    b = [tap("m", "mul", y), tap("m", "add", x), tap("n", "add", x), tap("m", "add", z)]
    assert [(p.a, p.b) for p in matched(a, b)] == [(1, 0), (0, 1), (2, 3)]


def test_one_more_on_one_side_shifts_nothing_of_another_size() -> None:
    x, long = GENERATOR.standard_normal(4), GENERATOR.standard_normal(7)
    a = [tap("m", "view", x), tap("m", "view", long)]
    b = [tap("m", "view", long)]
    assert [(p.a, p.b) for p in matched(a, b)] == [(1, 0)]


def test_what_was_fused_is_within() -> None:
    x = GENERATOR.standard_normal(50)
    relu = np.maximum(x, 0)
    eager = [
        tap("conv", "conv", x, user=1),
        tap("act", "relu", relu, user=2),
        tap("s", "sum", x[:1]),
    ]
    ours = [tap("conv", "conv", relu), tap("s", "sum", x[:1])]
    assert matched(eager, ours) == [Pair(1, 0, (0, 1)), Pair(2, 1, (2,))]


def test_a_factor() -> None:
    x = GENERATOR.standard_normal(50)
    (pair,) = matched(
        [tap("q", "linear", x, user=None), tap("y", "z", x, 0)], [tap("q", "linear", x / 8)]
    )
    assert pair.factor == pytest.approx(0.125)
    noise = GENERATOR.standard_normal(50)
    (pair,) = matched([tap("q", "linear", x), tap("y", "z", x, 0)], [tap("q", "linear", noise)])
    assert pair.factor == 1.0


def test_without_origins_by_kind_and_size() -> None:
    x, long = GENERATOR.standard_normal(4), GENERATOR.standard_normal(7)
    a = [tap("", "", x), tap("", "", long)]
    b = [tap("", "", long[:2]), tap("", "", x), tap("", "", long)]
    assert [(p.a, p.b) for p in matched(a, b)] == [(0, 1), (1, 2)]

"""Which values are compared, and how they are turned."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.formats.sources import Origin
from penstock.tools.compare.forms import Affine, Centred, Multiple, form_of
from penstock.tools.compare.layout import in_layout_of
from penstock.tools.compare.match import matched
from penstock.tools.compare.pairs import Pair
from penstock.tools.compare.taps import Tap

GENERATOR = np.random.default_rng(0)


def tap(module: str, operator: str, array: np.ndarray, *reads: int, kind: str | None = None) -> Tap:
    return Tap(Origin(module, "", operator), kind or operator or "add", "fp32", array, reads)


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
        tap("conv", "conv", x),
        tap("act", "relu", relu, 0),
        tap("s", "sum", x[:1], 1),
    ]
    ours = [tap("conv", "conv", relu), tap("s", "sum", x[:1])]
    assert matched(eager, ours) == [Pair(1, 0, (0, 1)), Pair(2, 1, (2,))]


def test_forms() -> None:
    x = GENERATOR.standard_normal((40, 20)) + 1
    noise = 1e-3 * GENERATOR.standard_normal(x.shape)
    form = form_of(x, x / 8 + noise / 100)
    assert isinstance(form, Multiple) and form.factor == pytest.approx(0.125, rel=1e-4)
    # Either of the two may be centred.
    centred = x - x.mean(0, keepdims=True)
    assert form_of(x, centred + noise) == form_of(centred, x + noise) == Centred(0)
    scale, offset = GENERATOR.standard_normal((2, 1, 20))
    form = form_of(x, x * scale + offset + noise)
    assert isinstance(form, Affine)
    np.testing.assert_allclose(form.scale, scale, atol=1e-2)
    np.testing.assert_allclose(form.offset, offset, atol=1e-2)
    (pair,) = matched([tap("q", "linear", x)], [tap("q", "linear", x / 8)])
    assert isinstance(pair.form, Multiple)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 0.1, 1.0])
def test_noise_is_no_form(noise: float) -> None:
    x = GENERATOR.standard_normal((60, 30)) + 1
    assert form_of(x, x + noise * GENERATOR.standard_normal(x.shape)) is None
    assert form_of(np.full((9, 9), np.inf), np.ones((9, 9))) is None


def test_without_origins_by_kind_and_size() -> None:
    x, long = GENERATOR.standard_normal(4), GENERATOR.standard_normal(7)
    a = [tap("", "", x), tap("", "", long)]
    b = [tap("", "", long[:2]), tap("", "", x), tap("", "", long)]
    assert [(p.a, p.b) for p in matched(a, b)] == [(0, 1), (1, 2)]


def test_without_origins_by_values() -> None:
    """The same numbers belong together, whatever makes them and however they lie there."""
    image = GENERATOR.standard_normal((1, 5, 6, 7))
    one, other = GENERATOR.standard_normal((2, 210))
    a = [
        tap("", "", image, kind="conv"),
        tap("", "", np.moveaxis(image, 1, -1), 0, kind="transpose"),
        tap("", "", one, kind="multiply"),
        tap("", "", other, kind="add"),
    ]
    b = [
        tap("c", "conv", np.moveaxis(image, 1, -1), kind="conv"),
        tap("r", "mul", other + 1e-3 * one, kind="multiply"),
        tap("l", "mul", one, kind="multiply"),
    ]
    assert [(p.a, p.b) for p in matched(a, b)] == [(0, 0), (3, 1), (2, 2)]
    assert matched(a, b)[0].within == (0, 1)


def test_without_origins_what_parted_is_matched_between_what_agrees() -> None:
    x, y, z, wrong = GENERATOR.standard_normal((4, 50))
    a = [tap("", "", v, kind=k) for v, k in ((x, "conv"), (y, "conv"), (y, "clamp"), (z, "conv"))]
    b = [tap("m", "o", v, kind=k) for v, k in ((x, "conv"), (wrong, "conv"), (z, "conv"))]
    assert [(p.a, p.b) for p in matched(a, b)] == [(0, 0), (1, 1), (3, 2)]
    # Where nothing agrees the kinds are left.
    parted = [tap("m", "o", wrong, kind=k) for k in ("conv", "conv", "conv")]
    assert [(p.a, p.b) for p in matched(a, parted)] == [(0, 0), (1, 1), (3, 2)]

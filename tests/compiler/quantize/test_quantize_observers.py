import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.quantize.observers import ActivationObserver, HistogramActivationObserver
from penstock.compiler.quantize.weight_observers import (
    PerChannelWeightObserver,
    TensorWeightObserver,
)

ACTIVATION = {
    "dtype": torch.int8,
    "quant_min": -128,
    "quant_max": 127,
    "qscheme": torch.per_tensor_affine,
    "eps": 2.0**-30,
}


def squared_error(values: torch.Tensor, observer: torch.nn.Module) -> float:
    scale, zero_point = (float(p) for p in observer.calculate_qparams())
    small = torch.clamp(torch.round(values / scale) + zero_point, -128, 127)
    return float((values - (small - zero_point) * scale).double().square().mean())


def observed(values: torch.Tensor, batches: int = 1, kind: type = HistogramActivationObserver):  # type: ignore[no-untyped-def]
    observer = kind(**ACTIVATION)
    for batch in values.chunk(batches):
        assert observer(batch) is batch
    return observer


def samples() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(40_000)
    return {
        "normal": x,
        "relu": x.relu(),
        "relu6": (3 * x).clamp(0, 6),
        "laplace": x.sign() * torch.rand(40_000).clamp(min=1e-9).log(),
        "shifted": x + 10,
        "negative": -x.abs(),
        "silu": torch.nn.functional.silu(2 * x),
        "two values": x.sign(),
        "small": x * 1e-6,
        "large": x * 1e6,
    }


@pytest.mark.parametrize("name", samples())
def test_no_worse_than_the_extremes(name: str) -> None:
    values = samples()[name]
    error = squared_error(values, observed(values, 3))
    assert error <= 1.02 * squared_error(values, observed(values, 3, ActivationObserver))


def test_cuts_off_rare_extremes() -> None:
    values = torch.cat([samples()["normal"].repeat(10), torch.tensor([10.0])])
    error = squared_error(values, observed(values))
    assert error < 0.8 * squared_error(values, observed(values, kind=ActivationObserver))


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(1e-3, 1e4),
    shift=st.floats(-3, 3),
    seed=st.integers(0, 99),
    batches=st.integers(1, 5),
)
def test_batches_add_up(scale: float, shift: float, seed: int, batches: int) -> None:
    """Widening the bins for a later batch moves the range by no more than a bin or two."""
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(2000, generator=generator) + shift) * scale
    growing = torch.cat([values * 1e-3, values])
    whole, parts = observed(growing), observed(growing, batches)
    assert squared_error(growing, parts) == pytest.approx(squared_error(growing, whole), rel=0.02)


@given(value=st.floats(-1e6, 1e6, width=32))
@settings(max_examples=30, deadline=None)
def test_a_single_value_is_kept(value: float) -> None:
    observer = observed(torch.full((10,), value))
    scale, zero_point = (float(p) for p in observer.calculate_qparams())
    small = max(-128, min(127, round(value / scale) + zero_point))
    assert (small - zero_point) * scale == pytest.approx(value, abs=scale)


def test_zero_is_exact_and_infinities_are_passed_over() -> None:
    values = torch.tensor([float("inf"), -2.0, 3.0, float("-inf"), float("nan")])
    scale, zero_point = (float(p) for p in observed(values).calculate_qparams())
    assert zero_point == round(zero_point) and -128 <= zero_point <= 127
    assert 255 * scale <= 10.1
    for nothing in (torch.zeros(5), torch.zeros(0), torch.full((3,), float("inf"))):
        scale, zero_point = (float(p) for p in observed(nothing).calculate_qparams())
        assert scale > 0 and math.isfinite(scale) and zero_point == -128


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_bias_fits_into_int32(per_channel: bool) -> None:
    activation = observed(torch.rand(100) * 1e-3)
    options = {**ACTIVATION, "quant_min": -127, "eps": 2.0**-24}
    if per_channel:
        options["qscheme"] = torch.per_channel_symmetric
        weight_observer = PerChannelWeightObserver(**options, ch_axis=0)
    else:
        options["qscheme"] = torch.per_tensor_symmetric
        weight_observer = TensorWeightObserver(**options)
    weight = torch.randn(4, 3) * torch.tensor([[1.0], [1e-6], [0.0], [1e-3]])
    if not per_channel:
        weight *= 1e-6
    bias = torch.tensor([0.1, 50.0, 100.0, 0.0])
    weight_observer(weight)
    plain = weight_observer.calculate_qparams()[0].clone()
    weight_observer.guard.watch(bias, activation)
    guarded = weight_observer.calculate_qparams()[0]
    unit = guarded * activation.calculate_qparams()[0]
    assert bool((bias.abs() / unit <= 2.0**30 * 1.001).all())
    assert bool((guarded >= plain).all())
    if per_channel:
        assert guarded[3] == plain[3]


def test_the_result_keeps_within_xnnpacks_ratio() -> None:
    """A layer that gave next to nothing in calibration gets a scale that XNNPACK takes."""
    activation, result = observed(torch.rand(2000) * 1e3), observed(torch.rand(2000) * 1e-6)
    weight_observer = PerChannelWeightObserver(
        **{**ACTIVATION, "quant_min": -127, "qscheme": torch.per_channel_symmetric}, ch_axis=0
    )
    weight_observer(torch.randn(4, 3))
    result.watch("conv2d", activation, weight_observer)
    scale, zero_point = result.calculate_qparams()
    product = activation.calculate_qparams()[0] * weight_observer.calculate_qparams()[0]
    assert float(product.max() / scale) < 256 and int(zero_point) == -128


def test_a_loop_of_results_comes_to_an_end() -> None:
    one, other = observed(torch.rand(2000)), observed(torch.rand(2000))
    weight_observer = TensorWeightObserver(
        **{**ACTIVATION, "quant_min": -127, "qscheme": torch.per_tensor_symmetric}
    )
    weight_observer(torch.randn(4, 3))
    one.watch("a", other, weight_observer)
    other.watch("b", one, weight_observer)
    one.watch("c", one, weight_observer)
    assert float(one.calculate_qparams()[0]) > 0 and float(other.calculate_qparams()[0]) > 0


@pytest.mark.parametrize("count", [8, 40, 600])
def test_others_may_be_larger_than_a_few(count: int) -> None:
    """Normally distributed values: few show less of their range than many do."""
    generator = torch.Generator().manual_seed(0)
    few, others = torch.randn(count, generator=generator), torch.randn(8192, generator=generator)
    kept = observed(few)
    plain = squared_error(others, observed(few, kind=ActivationObserver))
    assert squared_error(others, kept) < 0.6 * plain
    low, high = kept.best_range()
    assert min(float(few.min()), 0.0) * 2 <= low and high <= max(float(few.max()), 0.0) * 2
    parts = HistogramActivationObserver(**ACTIVATION)
    for part in few.split(max(1, count // 3)):
        parts.absorb(observed(part))
    assert parts.best_range() == (low, high)


def test_few_values_that_hardly_differ_from_call_to_call_need_little_room() -> None:
    """Means of channels over many positions, say: no call shows a much larger one than others."""
    generator = torch.Generator().manual_seed(0)
    channels = torch.randn(16, generator=generator)
    calls = channels * (1 + 0.01 * torch.randn(12, 16, generator=generator))
    low, high = observed(calls, 12).best_range()
    assert float(calls.max()) <= high < 1.1 * float(calls.max())
    assert 1.1 * float(calls.min()) < low <= float(calls.min())
    # In one call, or in three, nothing is known of that.
    assert observed(calls.flatten()).best_range()[1] > 1.2 * float(calls.max())
    assert observed(calls[:3], 3).best_range()[1] > 1.2 * float(calls.max())
    # Calls that share nothing need what their number of values says.
    few, others = torch.randn(12, 8, generator=generator), torch.randn(8192, generator=generator)
    plain = squared_error(others, observed(few, kind=ActivationObserver))
    assert squared_error(others, observed(few, 12)) < 0.6 * plain


def test_a_bound_that_few_values_reach_is_one() -> None:
    assert observed(torch.tensor([-1.0, 6.0, 2.0, 6.0, -1.0]), 5).best_range() == (-1.0, 6.0)
    assert observed(torch.tensor([0.5, 6.0, 2.0, 5.0])).best_range() == (0.0, 12.0)
    assert observed(torch.tensor([6.0]), 1, ActivationObserver).best_range() == (0.0, 6.0)

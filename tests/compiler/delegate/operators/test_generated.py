"""Convolutions, poolings and reductions with generated shapes and parameters."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operator_harness import check, check_quantized
from torch import nn
from torch.nn import functional as F

from penstock.graph.kinds import NodeKind

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
FEW = settings(max_examples=12, deadline=None, derandomize=True)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, torch.Tensor]:
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    inside = groups * draw(st.integers(1, 3))
    outside = groups * draw(st.integers(1, 3))
    kernel, dilation = draw(pairs(1, 4)), draw(pairs(1, 3))
    stride = draw(pairs(1, 3))
    same = stride == (1, 1) and draw(st.booleans())
    padding = "same" if same else draw(pairs(0, 3))
    size = draw(pairs(3, 12))
    if not same:
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        assume(all(s + 2 * p >= w for s, p, w in zip(size, padding, spans, strict=True)))
    torch.manual_seed(draw(st.integers(0, 100)))
    module = nn.Conv2d(
        inside, outside, kernel, stride, padding, dilation, groups, draw(st.booleans())
    )
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    return module, torch.randn(*batch, inside, *size)


@EXAMPLES
@given(convolutions())
def test_convolution(made: tuple[nn.Conv2d, torch.Tensor]) -> None:
    check(*made)


@FEW
@given(convolutions())
def test_quantized_convolution(made: tuple[nn.Conv2d, torch.Tensor]) -> None:
    module, x = made
    depthwise = module.groups > 1 and module.in_channels == module.groups
    kind = NodeKind.DEPTHWISE_CONV_2D if depthwise else NodeKind.CONV_2D
    check_quantized(module, x, expected=kind, least_sqnr=20.0)


@EXAMPLES
@given(
    st.sampled_from([1, 2, 3]), pairs(1, 3), pairs(1, 4), pairs(1, 3), pairs(0, 2), pairs(1, 2),
    pairs(0, 1), pairs(2, 6), st.booleans(),
)  # fmt: skip
def test_transposed_convolution(
    groups: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    extra: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    sizes = zip(size, stride, padding, extra, spans, strict=True)
    assume(all((n - 1) * s - 2 * p + e + w + 1 > 0 for n, s, p, e, w in sizes))
    assume(all(e < s for e, s in zip(extra, stride, strict=True)))
    inside, outside = channels[0] * groups, channels[1] * groups
    module = nn.ConvTranspose2d(
        inside, outside, kernel, stride, padding, extra, groups, bias, dilation
    )
    check(module, torch.randn(2, inside, *size))


@EXAMPLES
@given(
    st.sampled_from([F.max_pool2d, F.avg_pool2d]), pairs(1, 4), pairs(1, 4), pairs(0, 2),
    st.booleans(), st.booleans(), pairs(3, 9),
)  # fmt: skip
def test_pooling(
    pool: object,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil_mode: bool,
    count_padding: bool,
    size: tuple[int, int],
) -> None:
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    x = torch.randn(2, 3, *size)
    if pool is F.max_pool2d:
        check(lambda x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode), x)
    else:
        check(lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_padding), x)


@EXAMPLES
@given(st.data(), st.sampled_from(["mean", "sum", "amax", "amin", "var", "logsumexp"]))
def test_reductions_of_moved_tensors(data: st.DataObject, name: str) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(shape))))
    dims = data.draw(st.lists(st.sampled_from(range(len(shape))), min_size=1, unique=True))
    keepdim = data.draw(st.booleans())
    extra = {"correction": 0} if name == "var" else {}
    function = getattr(torch, name)

    def program(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = function((x * 2).permute(order), dims, keepdim=keepdim, **extra)
        return result

    check(program, torch.randn(shape))


@EXAMPLES
@given(
    pairs(1, 9), pairs(1, 9),
    st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]), st.booleans(),
)  # fmt: skip
def test_resizing(old: tuple[int, int], new: tuple[int, int], mode: str, align: bool) -> None:
    options = {} if mode.startswith("nearest") else {"align_corners": align}
    check(lambda x: F.interpolate(x, size=new, mode=mode, **options), torch.randn(2, 3, *old))


@FEW
@given(st.floats(0.3, 3.0), st.sampled_from(["nearest", "bilinear"]), st.booleans())
def test_scale_factors(factor: float, mode: str, again: bool) -> None:
    options = {} if mode == "nearest" else {"align_corners": False}
    check(
        lambda x: F.interpolate(
            x, scale_factor=factor, mode=mode, recompute_scale_factor=again, **options
        ),
        torch.randn(1, 2, 7, 6),
    )

"""Cases of sliding windows and of three spatial axes."""

from __future__ import annotations

from operator_cases import case, numbers
from torch import nn
from torch.nn import functional as F

VOLUME = numbers(2, 4, 6, 7, 5)

case(
    "unfold", lambda x: (x.unfold(1, 3, 1), x.unfold(2, 2, 2), x.unfold(-1, 5, 2)), numbers(2, 8, 9)
)
case("im2col", lambda x: (F.unfold(x, 3), F.unfold(x, (2, 3), 2, 1, 3)), numbers(2, 3, 8, 9))
case("im2col", lambda x: F.unfold(x, (2, 3), stride=(2, 3)), numbers(2, 3, 9, 9))
case("col2im", lambda x: F.fold(x, (6, 4), 2, stride=2), numbers(2, 12, 6))
case("col2im", lambda x: F.fold(x, (7, 6), (3, 2), padding=1, stride=2), numbers(2, 12, 16))
case("col2im", lambda x: F.fold(x, (5, 6), (3, 2), dilation=2), numbers(12, 4))
case("conv3d", nn.Conv3d(4, 6, 3, padding=1), VOLUME)
case("conv3d", nn.Conv3d(4, 6, (2, 3, 1), stride=(2, 1, 2), dilation=(2, 1, 1), groups=2), VOLUME)
case("conv3d", nn.Conv3d(4, 4, (3, 1, 1), padding="same", groups=4, bias=False), VOLUME)
case("conv_transpose3d", nn.ConvTranspose3d(4, 6, 2, stride=2), VOLUME)
case("conv_transpose3d", nn.ConvTranspose3d(4, 6, 4, stride=2, padding=1), VOLUME)
case("conv_transpose3d", nn.ConvTranspose3d(4, 6, 2, stride=3, output_padding=2, groups=2), VOLUME)
case(
    "conv_transpose3d",
    nn.ConvTranspose3d(4, 2, (2, 3, 1), (1, 2, 1), dilation=(3, 1, 1), bias=False),
    VOLUME,
)
case("max_pool3d", lambda x: (F.max_pool3d(x, 2), F.max_pool3d(x, (3, 2, 1), 2, (1, 1, 0))), VOLUME)
case("max_pool3d", lambda x: F.max_pool3d(x, 2, ceil_mode=True), VOLUME)
case("avg_pool3d", lambda x: (F.avg_pool3d(x, 2), F.avg_pool3d(x, 3, 2, 1)), VOLUME)
case(
    "avg_pool3d",
    lambda x: F.avg_pool3d(x, 3, 2, 1, count_include_pad=False, ceil_mode=True),
    VOLUME,
)
case("avg_pool3d", lambda x: F.avg_pool3d(x, 3, 2, 1, divisor_override=5, ceil_mode=True), VOLUME)
case("avg_pool3d", nn.LocalResponseNorm(3), numbers(2, 6, 4, 5))

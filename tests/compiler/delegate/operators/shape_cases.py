"""More cases: movement, reductions, norms, recurrent layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from operator_cases import IMAGES, case, numbers, positive
from torch import nn
from torch.nn import functional as F

aten = torch.ops.aten
X = numbers(2, 3, 4, 5)

# --- movement ----------------------------------------------------------------------------------

case("reshape", lambda x: (x.view(6, 20), x.flatten(1), x.unflatten(2, (2, 2)), x[:, :1].squeeze(1),
                           x.unsqueeze(-1), x.reshape(5, 24), x.reshape(-1)), X)  # fmt: skip
case("reshape", lambda x: x.permute(3, 1, 0, 2).reshape(5, 6, 4) + 1, X)
case("permute", lambda x: x.permute(2, -1, 0, 1), X)
case("transpose", lambda x: (x.transpose(1, -1), x.swapaxes(0, 2)), X)
case("t", lambda x: (x.t(), x.mT, x.T), numbers(3, 4))
case("movedim", lambda x: (x.movedim(1, -1), x.movedim((0, 1), (2, 0))), X)
case("expand", lambda x: (x.expand(2, 3, 4), x.expand(-1, 4) * 2, x.expand_as(torch.ones(3, 4))),
     numbers(3, 1))  # fmt: skip
case("cat", lambda x, y: (torch.cat([x, y], 1), torch.cat([x, x, x, x, x, x, x], -1)),
     X, numbers(2, 1, 4, 5))  # fmt: skip
case("stack", lambda x: (torch.stack([x, x + 1], 1), torch.stack([x, x], -1)), X)
case("slice", lambda x: (x[:, 1:], x[..., ::2], x[:, :, -3:-1], x[..., 1::3], x[:, :, 3::2]), X)
case("narrow", lambda x: x.narrow(-1, 1, 3), X)
case("select", lambda x: (x[:, 1], x[..., -1], x[1, 2]), X)
case("split", lambda x: (*x.split(2, 2), *x.chunk(2, -1), *x.unbind(1), *x.split([1, 4], -1)), X)
case("split", lambda x: x.tensor_split(3, 1), X)

INDEX = torch.tensor([2, 0, 0, 1])
case("index_select", lambda x: x.index_select(1, INDEX), X)
case("index", lambda x: (x[:, INDEX], x[:, :, [[0, 1], [3, 2]]], x[..., [4, 3, 2, 1, 0]]), X)
case("index", lambda x: (x[:, [0, 1, 2], [1, 1, 3]], x[[0, 1], :, [1, 2]]), X)
case("index", lambda x: x[:, (torch.arange(200) * 7) % 131], numbers(2, 131, 3))
case("index", lambda x: x[..., (torch.arange(200) * 7) % 131], numbers(2, 3, 131))
case("gather", lambda x: x.gather(1, torch.tensor([[[2, 1, 0, 0]]])), numbers(1, 3, 4))
case(
    "gather",
    lambda x: torch.take_along_dim(x, torch.tensor([2, 0]).view(1, 2, 1), 1),
    numbers(2, 3, 4),
)
case("flip", lambda x: (x.flip(1), x.flip(0, -1)), X)
case("roll", lambda x: (x.roll(1, 2), x.roll((-2, 3), (3, 1)), x.roll(7)), X)
case(
    "roll", lambda x: (x.roll((1, -1, 2), (1, 2, 3)), x.roll((1, 4, 1), (3, 2, 3)), x.roll(4, 2)), X
)
case("roll", lambda x: x.permute(0, 2, 3, 1).roll((-2, 3), (1, 2)).roll(1, -1), X)
case("roll", lambda x: x[:, :1].expand(2, 3, 4, 5).roll((1, 2), (1, 3)), X)
case("repeat", lambda x: (x.repeat(1, 2, 1, 3), x.repeat(2, 1, 1, 1, 1), x.tile(2, 1)), X)
case("repeat_interleave", lambda x: (x.repeat_interleave(3, 1), x.repeat_interleave(2)), X)
case("diagonal", lambda x: (x.diagonal(), x.diagonal(1, 1, 2), x.diagonal(-1, 3, 2)), X)
case("triangle", lambda x: (x.tril(), x.triu(1), x.tril(-1)), X)
case("slice_scatter", lambda x, y: aten.slice_scatter(x, y, 1, 1, 2), X, numbers(2, 1, 4, 5))
case("slice_scatter", lambda x, y: aten.select_scatter(x, y, -1, -2), X, numbers(2, 3, 4))
case(
    "slice_scatter",
    lambda x, y: (
        aten.slice_scatter(x, y, -1, 0, 5, 2),
        aten.slice_scatter(x, y[..., :2], -1, 1, 5, 2),
    ),
    X,
    numbers(2, 3, 4, 3),
)
case(
    "slice_scatter",  # the last step hangs over the end, six dimensions have no room for another
    lambda x, y, z, u: (aten.slice_scatter(x, y, 1, 0, 3, 2), aten.slice_scatter(z, u, 2, 1, 9, 3)),
    X,
    numbers(2, 2, 4, 5),
    numbers(2, 1, 8, 2, 1, 3),
    numbers(2, 1, 3, 2, 1, 3),
)
case(
    "diagonal_scatter",
    lambda x, y, z: (
        aten.diagonal_scatter(x, y, 0, 2, 3),
        aten.diagonal_scatter(x, z, 1, 1, -2),
        aten.diagonal_scatter(x[0, 0], y[0, 0, :3], -1),
    ),
    X,
    numbers(2, 3, 4),
    numbers(2, 5, 3),
)
case("index_copy", lambda x, y: x.index_copy(2, torch.tensor([3, 0, 1]), y), X, numbers(2, 3, 3, 5))
case(
    "index_fill",
    lambda x: (
        x.index_fill(1, torch.tensor([2, 0]), 3.0),
        x.index_fill(-1, torch.tensor([1, -1, 1, 1]), 3.0),
        (x * 2).index_fill(-1, torch.tensor([0, 2, 4, 3]), -math.inf),
    ),
    X,
)


class Assigned(nn.Module):
    """``x`` with some of its values assigned, as ``x[indices] = value``."""

    def __init__(self, *assignments: Any) -> None:
        super().__init__()
        self.assignments = assignments

    def forward(self, x: torch.Tensor, *values: torch.Tensor) -> list[torch.Tensor]:
        results = []
        for indices, value in self.assignments:
            copy = x.clone()
            copy[indices] = value(*values) if callable(value) else value
            results.append(copy)
        return results


ALL = slice(None)
case(
    "index_put",
    Assigned(
        ((ALL, [2, 0]), lambda y: y),
        (([[0, 1]], ALL, [[3], [1]]), lambda y: y[:1, :1, 0]),
        ((ALL, ALL, ALL, [0, 2, 4]), -math.inf),
        ((ALL, torch.tensor([True, False, True])), lambda y: y),
        (([0, 1, 0], [2, 0, 1]), lambda y: y[0, 0, 0, 0]),
    ),
    X,
    numbers(2, 2, 4, 5),
)
case("index_put", Assigned(((ALL, [0, 2, 5, 7, 11]), 2.5)), numbers(3, 12))
case(
    "scatter",
    lambda x, y: (
        x.scatter(1, torch.tensor([2, 0]).view(1, 2, 1, 1).expand(2, 2, 4, 5), y),
        x.scatter(-1, torch.tensor([4, 1, 0, 2]).view(1, 1, 4, 1).expand(2, 3, 4, 1), 7.0),
    ),
    X,
    numbers(2, 3, 4, 5),
)
for _mode in ("constant", "reflect", "replicate", "circular"):
    case("pad", lambda x, m=_mode: F.pad(x, (2, 1, 1, 3), mode=m), X)  # type: ignore[misc]
case("pad", lambda x: (F.pad(x, (1, -2), value=3.0), F.pad(x, (0, 0, -1, 2))), X)
case("pad", lambda x: F.pad(x, (4, 3), mode="reflect"), numbers(2, 3, 6))
case(
    "upsample_nearest",
    lambda x: [F.interpolate(x, size=s) for s in ((14, 12), (5, 9), (21, 6))],
    IMAGES,
)
case(
    "upsample_nearest", lambda x: [F.interpolate(x, scale_factor=f) for f in (3, 1.5, 0.4)], IMAGES
)
case("upsample_nearest", lambda x: F.interpolate(x, size=(5, 9), mode="nearest-exact"), IMAGES)
case("upsample_nearest", lambda x: F.interpolate(x, scale_factor=2), numbers(2, 3, 5))
case("upsample_bilinear", lambda x: [F.interpolate(x, size=s, mode="bilinear", align_corners=a)
                                     for s in ((14, 12), (5, 9), (1, 1)) for a in (True, False)],
     IMAGES)  # fmt: skip
case("upsample_bilinear", lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"), IMAGES)
case("upsample", lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), IMAGES)
case("upsample", lambda x: F.interpolate(x, size=(5, 3), mode="bilinear", antialias=True), IMAGES)
# With aligned corners the scale factors do not count; the step between two values is long.
case(
    "upsample",
    lambda x: torch.ops.aten._upsample_bilinear2d_aa(x, [2, 3], True, 1.7, 0.9),
    numbers(1, 2, 40, 50),
)
for _scale in (2, 1.3, 0.6):
    case(
        "upsample_linear",
        lambda x, s=_scale: F.interpolate(x, scale_factor=s, mode="linear"),  # type: ignore[misc]
        numbers(2, 3, 15),
    )
case("upsample_linear", lambda x: [F.interpolate(x, size=s, mode="linear", align_corners=a)
                                   for s in (13, 3, 1) for a in (True, False)],
     numbers(2, 3, 5))  # fmt: skip
case("upsample_linear", lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"),
     numbers(1, 2, 3, 4, 2))  # fmt: skip
case("upsample_linear", lambda x: F.interpolate(x, size=(5, 4, 3), mode="trilinear"),
     numbers(2, 3, 3, 4, 2))  # fmt: skip
case("upsample", lambda x: [F.interpolate(x, size=s, mode="bicubic", align_corners=a)
                            for s in ((14, 12), (5, 9), (1, 1)) for a in (True, False)],
     IMAGES)  # fmt: skip
case("upsample", lambda x: F.interpolate(x, size=(75, 31), mode="bicubic"), numbers(1, 3, 56, 40))
case("upsample", lambda x: F.interpolate(x, size=(28, 19), mode="bicubic", antialias=True),
     numbers(1, 3, 125, 90))  # fmt: skip
case("upsample", lambda x: F.interpolate(x, size=(28, 90), mode="bilinear", antialias=True),
     numbers(1, 20, 128, 90))  # fmt: skip
case("pixel_shuffle", nn.PixelShuffle(2), numbers(2, 8, 3, 4))
case(
    "pixel_shuffle",
    nn.Sequential(nn.Conv2d(4, 9, 3), nn.PixelShuffle(3), nn.Conv2d(1, 2, 3)),
    IMAGES,
)
case("pixel_unshuffle", nn.PixelUnshuffle(2), numbers(2, 3, 4, 6))
case("channel_shuffle", nn.ChannelShuffle(2), numbers(2, 6, 3, 4))

# --- reductions --------------------------------------------------------------------------------

DIMS = ([0], [-1], [1, 2], [0, 3], [0, 1, 2, 3])
case("mean", lambda x: [x.mean(d, keepdim=k) for d in DIMS for k in (True, False)], X)
case("mean", lambda x: x.permute(0, 2, 3, 1).mean((1, 2)), X)
case("sum", lambda x: [x.sum(d, keepdim=k) for d in DIMS for k in (True, False)], X)
case("amax", lambda x: [x.amax(d, keepdim=k) for d in DIMS for k in (True, False)] + [x.max()], X)
case("amax", lambda x: (x.amax(-1), x.amax(0)), numbers(3, 192))
case("amin", lambda x: [x.amin(d) for d in DIMS] + [x.min()], X)
case("max.dim", lambda x: (x.max(1)[0], x.max(-1, keepdim=True).values), X)
case("min.dim", lambda x: (x.min(1)[0], x.min(-1, keepdim=True).values), X)
case("aminmax", lambda x: torch.aminmax(x, dim=2), X)
case("var", lambda x: [x.var(d, correction=c) for d in DIMS for c in (0, 1)] + [x.var()], X + 30)
case("std", lambda x: (x.std(1), x.std((0, 2), unbiased=False), x.std()), X)
case("var_mean", lambda x: (*torch.var_mean(x, 1), *torch.var_mean(x, (0, 2), keepdim=True)), X)
case("std_mean", lambda x: (*torch.std_mean(x, 1), *torch.std_mean(x)), X)
case("logsumexp", lambda x: (x.logsumexp(1), x.logsumexp((0, -1), keepdim=True)), X * 90)
case("prod", lambda x: (x.prod(1), x.prod(-1, keepdim=True), (x / x).prod()), positive(2, 3, 7))
case("cumsum", lambda x: [x.cumsum(d) for d in range(4)], X)
case("cumsum", lambda x: x.cumsum(1), numbers(2, 300, 2))
case("cumprod", lambda x: [x.cumprod(d) for d in range(4)], X)
case("cummax", lambda x: (x.cummax(1)[0], x.cummax(-1).values), X)
case("cummin", lambda x: (x.cummin(1)[0], x.cummin(-1).values), X)
case("diff", lambda x: (x.diff(), x.diff(n=2, dim=2)), X)
case("norm", lambda x: [x.norm(p, d) for p in (1, 2, math.inf, -math.inf) for d in (1, (0, 2))], X)
case("norm", lambda x: (F.normalize(x, dim=1), x.norm()), X)
case("norm", lambda x: (x.norm(3, 1), x.norm(2.5, (0, 2)), x.norm(0.5, -1)), X)

# --- norms -------------------------------------------------------------------------------------


def lively(module: nn.Module) -> nn.Module:
    """With scales, shifts and statistics that do something."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype == torch.float32:
            tensor.data = torch.rand(tensor.shape) + 0.5
    return module.eval()


case("layer_norm", lively(nn.LayerNorm(5)), X * 4 + 9)
case("layer_norm", nn.LayerNorm((3, 4, 5), elementwise_affine=False), X)
case("layer_norm", nn.Sequential(nn.Conv1d(5, 6, 1), nn.LayerNorm(7)), numbers(2, 5, 7))
OVER_CHANNELS = lively(nn.LayerNorm(4))
case(
    "layer_norm",
    lambda x: OVER_CHANNELS(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    IMAGES,
)
case("rms_norm", lively(nn.RMSNorm(5)), X)
case("rms_norm", nn.RMSNorm((4, 5), eps=1e-3), X)
for _groups in (1, 2, 6):
    case("group_norm", lively(nn.GroupNorm(_groups, 6)), numbers(2, 6, 4, 5) + 3)
    case("group_norm", nn.Sequential(nn.Conv2d(4, 6, 3), lively(nn.GroupNorm(_groups, 6)),
                                     nn.Conv2d(6, 2, 1)), IMAGES)  # fmt: skip
    case("group_norm", lively(nn.GroupNorm(_groups, 6)), numbers(2, 6, 9))
case("group_norm", lively(nn.GroupNorm(2, 6)), numbers(3, 6))
case("group_norm", nn.Sequential(nn.Conv2d(4, 144, 1), lively(nn.GroupNorm(8, 144))), IMAGES)
case("instance_norm", lively(nn.InstanceNorm2d(4, affine=True)), IMAGES)
case(
    "instance_norm",
    nn.Sequential(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6), nn.Conv2d(6, 2, 1)),
    IMAGES,
)
case(
    "instance_norm",
    lively(nn.InstanceNorm1d(3, affine=True, track_running_stats=True)),
    numbers(2, 3, 9),
)
case("batch_norm", lively(nn.BatchNorm2d(4)), IMAGES)
case("batch_norm", lively(nn.BatchNorm1d(4)), numbers(3, 4))
case("batch_norm", lively(nn.BatchNorm1d(4, affine=False)), numbers(3, 4, 6))
case("batch_norm", lively(nn.BatchNorm3d(2)), numbers(1, 2, 3, 4, 5))

# --- recurrent ---------------------------------------------------------------------------------

STEPS = numbers(5, 2, 4)
LSTM, GRU, LSTM_CELL = nn.LSTM(4, 3, bias=False), nn.GRU(4, 3), nn.LSTMCell(4, 3)
case("lstm", nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True), STEPS)
case("lstm", nn.LSTM(4, 6, proj_size=3), STEPS)
case(
    "lstm",
    lambda x, h, c: LSTM(x, (h, c)),
    STEPS,
    numbers(1, 2, 3),
    numbers(1, 2, 3),
)
case("gru", nn.GRU(4, 3, 2, bidirectional=True), STEPS)
case("gru", lambda x, h: GRU(x, h), numbers(5, 4), numbers(1, 3))
case("rnn_tanh", nn.RNN(4, 3, 2), STEPS)
case("rnn_relu", nn.RNN(4, 3, nonlinearity="relu", bidirectional=True), STEPS)
case(
    "lstm_cell",
    lambda x, h, c: LSTM_CELL(x, (h, c)),
    STEPS[0],
    numbers(2, 3),
    numbers(2, 3),
)
case("gru_cell", nn.GRUCell(4, 3), STEPS[0], numbers(2, 3))
case("rnn_tanh_cell", nn.RNNCell(4, 3), STEPS[0], numbers(2, 3))
case("rnn_relu_cell", nn.RNNCell(4, 3, nonlinearity="relu"), numbers(4))

# --- long rows, in two steps -------------------------------------------------------------------

case("mean", lambda x: (x.mean(-1), x.mean()), numbers(3, 30000) + 5)
case("mean", lambda x: x.mean(-1), numbers(2, 16411) + 5)  # a prime: by pooling
case("sum", lambda x: (x.sum(-1, keepdim=True), x.sum()), numbers(2, 40000))

"""Models that run outside a delegate, in part or wholly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from emit_harness import Case
from torch import nn
from torch.nn import functional as F

KERNELS_ONLY = {"delegate": False}


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def of(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """``make`` of a case that calls ``function``; shapes stand for random tensors."""

    def make() -> Any:
        inputs = tuple(torch.randn(a) if isinstance(a, tuple) else a for a in args)
        return Call(function), [inputs]

    return make


def module(build: Callable[[], nn.Module], *args: Any) -> Callable[[], Any]:
    def make() -> Any:
        inputs = tuple(torch.randn(a) if isinstance(a, tuple) else a for a in args)
        return build(), [inputs]

    return make


class SmallConvolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.n = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.c = nn.Linear(8, 5)
        self.lonely = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lonely(x)
        x = F.hardswish(self.n(self.a(x)))
        x = x + F.relu6(self.b(x))
        x = F.avg_pool2d(F.max_pool2d(x, 2), 2)
        return self.c(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Retrieval(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(20, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        x = self.e(ids)
        x = torch.where(mask.unsqueeze(-1), x, torch.zeros_like(x))
        total = x.cumsum(1)
        best = total.sum(-1).argmax(-1)
        values, places = torch.topk(total, 3, dim=-1)
        picked = total[torch.arange(ids.shape[0]), best]
        return {"picked": picked, "top": (values, places), "best": best, "count": mask.sum()}


INTS = torch.tensor([[1, 5, 3, 0], [7, 7, 19, 2]])
MASK = torch.tensor([[True, True, False, True], [True, True, False, True]])

FUNCTIONS: dict[str, Callable[[], Any]] = {
    "linear": module(lambda: nn.Linear(6, 3), (2, 6)),
    "convolutional": module(SmallConvolutional, (2, 3, 20, 20)),
    "encoder_layer": module(
        lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 5, 16)
    ),
    "encoder_layer_gelu": module(
        lambda: nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", norm_first=True),
        (5, 2, 16),
    ),
    "attention": module(lambda: Attention(), (2, 5, 16)),
    "lstm": module(lambda: nn.LSTM(6, 8, num_layers=2, bidirectional=True), (4, 2, 6)),
    "gru": module(lambda: nn.GRU(6, 8, batch_first=True), (2, 4, 6)),
    "retrieval": lambda: (Retrieval(), [(INTS, MASK)]),
    "upsample_nearest": of(lambda x: F.interpolate(x, scale_factor=2), (1, 3, 4, 5)),
    "upsample_bilinear": of(
        lambda x: F.interpolate(x, size=(7, 9), mode="bilinear"), (1, 3, 4, 5)
    ),
    "upsample_bilinear_corners": of(
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        (1, 3, 4, 5),
    ),
    "upsample_bicubic": of(
        lambda x: F.interpolate(x, size=(7, 9), mode="bicubic"), (1, 2, 4, 5)
    ),
    "upsample_1d": of(lambda x: F.interpolate(x, scale_factor=2, mode="linear"), (1, 2, 5)),
    "pixel_shuffle": of(lambda x: F.pixel_shuffle(x, 2), (1, 8, 3, 3)),
    "pixel_unshuffle": of(lambda x: F.pixel_unshuffle(x, 2), (1, 2, 4, 6)),
    "channel_shuffle": of(lambda x: F.channel_shuffle(x, 2), (1, 4, 3, 3)),
    "group_norm": module(lambda: nn.GroupNorm(2, 4), (2, 4, 5)),
    "instance_norm": module(lambda: nn.InstanceNorm2d(4, affine=True), (2, 4, 5, 5)),
    "layer_norm": module(lambda: nn.LayerNorm((4, 5)), (2, 4, 5)),
    "rms_norm": module(lambda: nn.RMSNorm(6), (2, 6)),
    "batch_norm_1d": module(lambda: nn.BatchNorm1d(4), (2, 4, 5)),
    "conv1d": module(lambda: nn.Conv1d(4, 6, 3, padding="same", dilation=2), (2, 4, 9)),
    "conv3d": module(lambda: nn.Conv3d(2, 3, 3), (1, 2, 5, 5, 5)),
    "conv_transpose": module(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (1, 4, 5, 5)
    ),
    "conv_unbatched": module(lambda: nn.Conv2d(3, 4, 3), (3, 6, 6)),
    "pools": of(
        lambda x: (F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
                   F.adaptive_avg_pool2d(x, (2, 3)), F.adaptive_max_pool2d(x, 2)),
        (1, 3, 7, 7),
    ),
    "pools_1d": of(
        lambda x: (F.max_pool1d(x, 2), F.avg_pool1d(x, 2), F.adaptive_avg_pool1d(x, 3)),
        (1, 3, 8),
    ),
    "max_pool_indices": of(lambda x: F.max_pool2d(x, 2, return_indices=True), (1, 3, 6, 6)),
    "views": of(
        lambda x: (x.view(6, 4), x.transpose(0, 1), x.permute(2, 0, 1), x[1], x[:, 1:3],
                   x.unsqueeze(1), x.unsqueeze(0).squeeze(), x.expand(5, 2, 3, 4), x.flatten(1),
                   x.narrow(2, 1, 2), x.select(1, 2), x.diagonal(0, 1, 2), x.unfold(2, 2, 1),
                   x.movedim(0, 2), x.T.contiguous(), x.swapaxes(0, 2)),
        (2, 3, 4),
    ),
    "splits": of(
        lambda x: (*x.split(2, 1), *x.chunk(3, 0), *x.unbind(2), *x.split([1, 3], 1),
                   *torch.tensor_split(x, 3, 1)),
        (4, 4, 3),
    ),
    "joins": of(
        lambda x, y: (torch.cat([x, y], 1), torch.stack([x, y], -1), torch.hstack([x, y])),
        (2, 3), (2, 3),
    ),
    "activations": of(
        lambda x: tuple(
            f(x) for f in (F.relu, F.gelu, F.silu, F.mish, F.softplus, F.hardsigmoid, F.hardtanh,
                           F.hardswish, F.elu, F.selu, F.celu, F.leaky_relu, F.logsigmoid,
                           F.softsign, F.tanhshrink, F.relu6, F.softshrink, F.hardshrink,
                           torch.tanh, torch.sigmoid)
        ),
        (3, 7),
    ),
    "gelu_tanh_glu_prelu": module(lambda: Gates(), (3, 8)),
    "softmaxes": of(
        lambda x: (F.softmax(x, -1), F.log_softmax(x, 0), F.softmin(x, 1), x.logsumexp(1)), (3, 5)
    ),
    "reductions": of(
        lambda x: (x.sum(), x.sum(1), x.mean((0, 2), keepdim=True), x.amax(1), x.min(), x.var(1),
                   x.std((0, 1)), x.prod(2), x.norm(), x.norm(dim=1), x.argmin(), x.argmax(2),
                   x.max(1).values, x.max(1).indices, (x > 0).any(), (x > 0).all(1), x.median(),
                   torch.linalg.vector_norm(x, 1, dim=2), x.abs().mean(), *torch.aminmax(x),
                   x.std_mean if False else torch.var_mean(x, 1)),
        (3, 4, 5),
    ),
    "arithmetic": of(
        lambda x, y: (x + y, x - 2, 3 - x, x * y, x / y, x // 0.7, x % 0.7, x ** 2, x.pow(3.0),
                      2 ** x, torch.addcmul(x, x, y), torch.lerp(x, y, 0.3), x.clamp(-0.5, 0.5),
                      torch.maximum(x, y), x.abs().sqrt(), x.abs().rsqrt(), x.reciprocal(),
                      torch.atan2(x, y), x.round(), x.frac(), x.sign(), torch.hypot(x, y),
                      x.exp2(), x.square(), torch.add(x, y, alpha=2), torch.sub(x, y, alpha=3),
                      torch.rsub(x, y), x.erf(), x.erfc(), torch.copysign(x, y), -x,
                      torch.addcdiv(x, x, y.abs() + 1)),
        (3, 4), (3, 4),
    ),
    "products": of(
        lambda x, y, z: (x @ y, torch.mm(x, y), torch.addmm(z, x, y),
                         torch.einsum("ij,jk->ki", x, y),
                         torch.outer(x[0], y[0]), torch.dot(x[0], x[1]), x @ y[:, 0],
                         torch.baddbmm(z[None], x[None], y[None]), torch.matmul(x[None], y),
                         torch.kron(x, y), torch.cdist(x, x), F.cosine_similarity(x, x + 1),
                         torch.bilinear(x, x, y[None].expand(2, 4, 5)[:, :, :4], None)
                         if False else F.linear(x, y.T, z[0])),
        (3, 4), (4, 5), (3, 5),
    ),
    "comparisons": of(
        lambda x, y: (x > y, x == y, (x < 0) & (y < 0), ~(x > 0), torch.where(x > 0, x, y),
                      torch.where(x > 0, 1.0, 0.0), x.masked_fill(x < 0, -1.0), (x > 0).int(),
                      torch.isnan(x), torch.isfinite(x), (x > 0).logical_xor(y > 0), x.long(),
                      x.to(torch.float64), torch.isclose(x, y), x.heaviside(y)),
        (3, 4), (3, 4),
    ),
    "indexing": of(
        lambda x, i: (x[i], x[:, i], x[i, i], torch.gather(x, 1, i[None].expand(4, -1)),
                      x.index_select(0, i), torch.take_along_dim(x, i[None], 1), x[..., -1],
                      x[x.shape[0] - 1], x.scatter(0, i[None], 2.0), x[::2, 1::2],
                      torch.zeros(4, 4).index_put((i, i), x[0, :3]), x.scatter_add(0, i[None], x),
                      F.one_hot(i, 5), torch.flip(x, [0]), x.roll(1, 1), x.tril(), x.triu(1),
                      x.index_add(0, i, x[:3]), torch.searchsorted(i, i) if False else i.sort()[0]),
        (4, 4), torch.tensor([0, 2, 1]),
    ),
    "scattered integers": of(
        lambda i, x, y: tuple(
            a.scatter_reduce(0, i, b, reduce, include_self=own)
            for a, b in ((x, y), (x % 2 == 0, y % 3 == 0))
            for reduce in ("sum", "prod", "mean", "amax", "amin")
            for own in (True, False)
            if a.dtype != torch.bool or reduce != "mean"
        ),
        torch.tensor([[0, 2, 1], [0, 2, 0]]), torch.arange(9).reshape(3, 3) - 4,
        torch.arange(6).reshape(2, 3) - 2,
    ),
    "scatter that adds or multiplies": of(
        lambda i, x: (x.scatter(0, i, x + 1, reduce="add"), x.scatter(0, i, 3, reduce="add"),
                      x.scatter(0, i, x, reduce="multiply"),
                      x.scatter(0, i, -2, reduce="multiply")),
        torch.tensor([[0, 2, 1], [0, 2, 0]]), (3, 3),
    ),
    "addcmul of integers": of(
        lambda x: (torch.addcmul(x, x + 1, x * 2, value=1.7), torch.addcmul(x, x, x, value=0.5),
                   torch.addcmul(x, x, x, value=-2), torch.addcmul(x * 0.5, x, x, value=0.5)),
        torch.arange(6) - 2,
    ),
    "affine grids": of(
        lambda x, y: (F.affine_grid(x, [2, 3, 4, 5], align_corners=False),
                      F.affine_grid(x, [2, 3, 4, 1], align_corners=True),
                      F.affine_grid(y, [2, 3, 4, 5, 2], align_corners=True)),
        (2, 2, 3), (2, 3, 4),
    ),
    "divergence": of(
        lambda x, y: (F.kl_div(x, torch.relu(y)), F.kl_div(x, y, log_target=True)), (3, 4), (3, 4)
    ),
    "sign of what may be NaN": of(lambda x: torch.sign(torch.log(x)), (3, 4)),
    "padding": of(
        lambda x: (F.pad(x, (1, 2, 0, 1)), F.pad(x, (1, 1, 1, 1), mode="reflect"),
                   F.pad(x, (1, 1, 1, 1), mode="replicate"),
                   F.pad(x, (1, 1, 1, 1), mode="circular"),
                   F.pad(x, (-1, 0)), F.pad(x, (1, 0), value=3.0)),
        (1, 2, 4, 4),
    ),
    "creation": of(
        lambda x: (torch.zeros_like(x) + x, torch.ones(2, 3) * x, torch.arange(3) * x,
                   torch.full((2, 3), 2.5) + x, torch.linspace(0, 1, 3) + x, x.new_zeros(2, 3),
                   torch.tensor([1.0, 2.0, 3.0]) * x, torch.eye(3) @ x.T, torch.full_like(x, 2)),
        (2, 3),
    ),
    "sorting": of(lambda x: (*x.sort(1), *x.topk(2), x.argsort(0)), (3, 5)),
    "repeats": of(
        lambda x: (x.repeat(2, 1, 3), x.tile(2), x.repeat_interleave(2, 1), x.expand_as(x),
                   x[:, None].expand(-1, 3, -1)),
        (2, 3),
    ),
    "integers": of(
        lambda i: (i + 1, i * i, i // 2, i % 3, i / 2, i.float() / 3, i.sum(), i.cumsum(0), -i,
                   i & 3, i << 1, i.clamp(1, 3), i.max(), i == 2, i.to(torch.int32), i.abs(), i**2,
                   i.bool(), i.unsqueeze(0).expand(2, 4)),
        torch.tensor([1, 2, 5, 4]),
    ),
    "remainders of integers": of(
        lambda i, j: (i % 3, i % -3, i % j, torch.remainder(i, torch.tensor(3)),
                      torch.remainder(-7, j), (i > 0) % j, i.to(torch.int8) % 4, i % 2.5),
        torch.tensor([-5, -3, 0, 4]), torch.tensor([3, -3, -2, 2]),
    ),
    "mixed types": of(
        lambda i, x: (torch.cat([i, x]), torch.cat([i, x.double(), x]), torch.stack([x, i]),
                      torch.where(x > 0, i[0].long(), i), torch.where(x > 0, x, x[0].double()),
                      torch.add(i[0], x, alpha=-2), torch.add(x[:1], i, alpha=3)),
        torch.tensor([-5, -3, 4], dtype=torch.int32), (3,),
    ),
    "middles": of(
        lambda x: tuple(
            found
            for y in (x, x.log(), x.log().double(), (x * 1e4).long())
            for found in (y.median(), *y.median(1), *y.median(0, keepdim=True))
        ),
        (4, 5),
    ),
    "masked_attention": of(
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
        (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), MASK[0].expand(4, 4),
    ),
    "causal_attention": of(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8),
    ),
    "grid_sample": of(
        lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), (1, 2, 5, 5), (1, 3, 3, 2)
    ),
    "unfold_fold": of(
        lambda x: (F.unfold(x, 2), F.fold(F.unfold(x, 2, stride=2), (4, 4), 2, stride=2)),
        (1, 2, 4, 4),
    ),
    "shapes_of_scores": of(
        lambda x: (x.kthvalue(2)[0], x.median(1)[0], x.cummax(1)[0], x.cumprod(1),
                   x.diagonal_scatter(x[0]),
                   torch.searchsorted(x[0].sort()[0], x), torch.vander(x[0]), x.count_nonzero()),
        (4, 4),
    ),
    "pools_3d": of(
        lambda x: (F.avg_pool3d(x, 2), F.adaptive_avg_pool3d(x, 2),
                   F.adaptive_avg_pool3d(x.permute(0, 4, 1, 2, 3), (1, 2, 1)),
                   F.adaptive_avg_pool3d(x.permute(0, 4, 1, 2, 3), 1)), (1, 2, 4, 5, 6)
    ),
    "numbers": of(lambda x: x * x.sum().item() + 1, (2, 3)),
    "data_dependent": of(lambda x: (x[x > 0], torch.nonzero(x)), (3, 4)),
}  # fmt: skip


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.a(x, x, x)


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.PReLU(8)

    def forward(self, x: torch.Tensor) -> Any:
        return F.gelu(x, approximate="tanh"), F.glu(x, -1), self.p(x)


class Residual(nn.Module):
    """Adds of one shape, with and without an activation, and one that broadcasts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.l = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.a(x))
        x = F.relu(x + self.b(x))
        x = x + self.b(x)
        return self.l((x + x.mean((2, 3), keepdim=True)).mean((2, 3)))


QUANTIZED: dict[str, tuple[Callable[[], Any], str]] = {
    "residual": (module(Residual, (2, 3, 8, 8)), "static"),
    "residual_per_tensor": (module(Residual, (2, 3, 8, 8)), "static_per_tensor"),
    "convolutional": (module(SmallConvolutional, (2, 3, 20, 20)), "static"),
    "linear_dynamic": (module(lambda: nn.Linear(16, 8), (3, 16)), "dynamic"),
    "linear_3d": (module(lambda: nn.Linear(16, 8), (2, 3, 16)), "static"),
    "encoder_layer_dynamic": (
        module(lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 5, 16)),
        "dynamic",
    ),
}

CASES = [
    Case(
        "without dimensions",
        of(
            lambda x: (
                x.flip(0) * 2,
                x.index_select(0, torch.tensor([0])),
                x.movedim(0, 0) + 1,
                x.gather(0, torch.tensor([0])),
                x.gather(0, torch.tensor(0)) * 2,
                x.index_copy(0, torch.tensor([0]), x * 3),
                x.cumsum(0) - 1,
            ),
            (),
        ),
    ),  # fmt: skip
    *(Case(f"{name}_kernels", make, KERNELS_ONLY) for name, make in FUNCTIONS.items()),
    *(
        Case(f"{name}_int8_kernels", make, {**KERNELS_ONLY, "quantize": scheme}, 0.1)
        for name, (make, scheme) in QUANTIZED.items()
    ),
]

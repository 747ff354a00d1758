"""Small networks of the five kinds that look at pictures of any size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def block(inputs: int, outputs: int, stride: int = 1, groups: int = 1, size: int = 3) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
    """MobileNet v2's block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.wide = block(inputs, 4 * inputs, size=1)
        self.depthwise = block(4 * inputs, 4 * inputs, stride, 4 * inputs)
        self.narrow = nn.Conv2d(4 * inputs, outputs, 1)
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(self.depthwise(self.wide(x)))
        return x + y if self.same else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(3, 8, 2), Inverted(8, 8, 1), Inverted(8, 16, 2), Inverted(16, 16, 1),
            Inverted(16, 24, 2),
        )  # fmt: skip
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.head(torch.flatten(y, 1))


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = block(inputs, outputs, stride), block(outputs, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(self.first(x)) + self.skip(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 8, 2, size=7), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 16, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class DeepLab(nn.Module):
    """Dilated branches, one of them over the mean of all; the answer in the picture's size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8, 2), block(8, 16, 2), block(16, 16, 2))
        self.near = nn.Conv2d(16, 8, 1)
        self.far = nn.Conv2d(16, 8, 3, padding=6, dilation=6)
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU())
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        whole = F.interpolate(self.whole(y), size=y.shape[2:], mode="bilinear")
        y = self.head(torch.cat([self.near(y), self.far(y), whole], 1))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Skip connections; the way up by ``up``: nearest, bilinear, corners or deconvolution."""

    def __init__(self, up: str = "bilinear") -> None:
        super().__init__()
        self.up = up
        self.down = nn.ModuleList([block(3, 8), block(8, 16), block(16, 24)])
        self.grow = nn.ModuleList(
            [nn.ConvTranspose2d(24, 24, 2, 2), nn.ConvTranspose2d(16, 16, 2, 2)]
        )
        self.back = nn.ModuleList([block(24 + 16, 16), block(16 + 8, 8)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for grow, back, skip in zip(self.grow, self.back, skips[-2::-1], strict=True):
            x = back(torch.cat([skip, self.grown(grow, x)], 1))
        return self.head(x)

    def grown(self, grow: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if self.up == "deconvolution":
            return grow(x)
        if self.up == "nearest":
            return F.interpolate(x, scale_factor=2.0)
        corners = self.up == "corners"
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=corners)


class Detector(nn.Module):
    """YOLO's shape: two scales, joined by resizing and by a stride; boxes decoded in the picture's
    coordinates. ``flat``: all boxes of all scales in one list."""

    def __init__(self, flat: bool = False, anchors: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.flat, self.anchors, self.outputs = flat, anchors, 5 + classes
        self.stem = nn.Sequential(block(3, 8, 2), block(8, 16, 2))
        self.fine, self.coarse = block(16, 16, 2), block(16, 32, 2)
        self.pyramid = block(4 * 32, 32, size=1)
        self.merged, self.down, self.last = block(32 + 16, 16), block(16, 16, 2), block(48, 32)
        self.heads = nn.ModuleList(
            nn.Conv2d(width, anchors * self.outputs, 1) for width in (16, 32)
        )
        self.register_buffer("sizes", torch.rand(2, 1, anchors, 1, 1, 2) * 30 + 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        fine = self.fine(self.stem(x))
        coarse = self.coarse(fine)
        pooled = [coarse]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        coarse = self.pyramid(torch.cat(pooled, 1))
        fine = self.merged(torch.cat([F.interpolate(coarse, scale_factor=2.0), fine], 1))
        coarse = self.last(torch.cat([self.down(fine), coarse], 1))
        boxes = [self.decoded(scale, y) for scale, y in enumerate((fine, coarse))]
        if not self.flat:
            return tuple(boxes)
        return torch.cat([y.reshape(x.shape[0], -1, self.outputs) for y in boxes], 1)

    def decoded(self, scale: int, features: torch.Tensor) -> torch.Tensor:
        y = self.heads[scale](features)
        batch, _, height, width = y.shape
        y = y.view(batch, self.anchors, self.outputs, height, width).permute(0, 1, 3, 4, 2)
        rows = torch.arange(height, dtype=torch.float32)
        columns = torch.arange(width, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) - 0.5
        y = y.sigmoid()
        places = (y[..., 0:2] * 2 + grid) * 8.0 * (scale + 1)
        sizes = (y[..., 2:4] * 2) ** 2 * self.sizes[scale]
        return torch.cat([places, sizes, y[..., 4:]], -1)


def settled(network: nn.Module) -> nn.Module:
    """The network after some batches, so that its norms say something."""
    torch.manual_seed(0)
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(4, 3, 64, 64))
    return network.eval()

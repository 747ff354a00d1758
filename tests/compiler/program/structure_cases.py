"""Inputs, outputs and state: all that surrounds the operators."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from emit_harness import Case
from torch import nn
from torch.nn import functional as F

MODES = (("", {}), ("_kernels", {"delegate": False}))


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Found:
    logits: torch.Tensor
    extra: list[torch.Tensor]


torch.export.register_dataclass(Found)


class Function(nn.Module):
    """A function of the module (for its buffers) and the inputs."""

    def __init__(self, function: Callable[..., Any], **buffers: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in buffers.items():
            self.register_buffer(name, value.clone())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def cases(
    name: str,
    function: Callable[..., Any],
    *calls: Any,
    buffers: dict[str, torch.Tensor] | None = None,
    stock: bool = True,
) -> list[Case]:
    def make() -> Any:
        return Function(function, **(buffers or {})), list(calls)

    return [Case(name + mode, make, lower, stock=stock) for mode, lower in MODES]


def models(name: str, make: Callable[[], Any]) -> list[Case]:
    return [Case(name + mode, make, lower) for mode, lower in MODES]


class Keywords(nn.Module):
    def forward(
        self, x: torch.Tensor, *, scale: torch.Tensor, other: Any = None, flag: bool = True
    ) -> Any:
        z = x * scale
        if other is not None:
            z = z + other
        return {"z": z, "n": [x - 1, (x,)]}


class SharedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.cumsum(self.a(x), 0))


class Counter(nn.Module):
    """Buffers that change in place, one that starts anew and others that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("doubled", torch.arange(3.0))
        self.register_buffer("whole", torch.zeros((), dtype=torch.int64))
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        self.count += 1
        self.doubled.mul_(2)
        self.whole.add_(1)
        return self.linear(x) * self.count + self.doubled, self.count, self.whole


class Cache(nn.Module):
    """Rows written by index and through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(4, 3))
        self.register_buffer("view", torch.ones(4, 3))

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> Any:
        self.rows[places] = x
        self.view[1:3].add_(x)
        return self.rows.sum(0) + x, self.view * 2


class Swap(nn.Module):
    """The old state comes out, and two buffers exchange what they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(3))
        self.register_buffer("b", torch.ones(3))

    def forward(self, x: torch.Tensor) -> Any:
        old_a, old_b = self.a.clone(), self.b.clone()
        self.a.copy_(old_b)
        self.b.copy_(old_a + x)
        return old_a, old_b * 1


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


X, Y, VECTOR = _random(2, 3), _random(2, 3) + 1, _random(3)
IMAGE = _random(1, 3, 4, 4)

CASES = [
    *cases("numbers_in", lambda m, x, n, f, b: x * n + f if b else x,
           (X, 3, 2.5, True), (Y, 3, 2.5, True)),
    *cases("none_in", lambda m, x, n, y: x + y if n is None else x, (X, None, Y)),
    *cases("nested_in", lambda m, d, items: d["a"] + d["b"]["c"] * items[0] - items[1][0],
           ({"a": X, "b": {"c": Y}}, [X, (Y,)])),
    *cases("nested_out", lambda m, x, y: {"a": x + y, "b": [x * 2, (y, x - y)], "c": {"d": y / 2}},
           (X, Y)),
    *cases("one_output_twice", lambda m, x: (lambda z: (z, z, x, z))(F.relu(x)), (X,)),
    *cases("inputs_out", lambda m, x, y: (x, y), (X, Y)),
    *cases("constants_out", lambda m, x: (m.w, x + 1, m.w, m.w * 2), (X,),
           buffers={"w": VECTOR}),
    *cases("numbers_out", lambda m, x: (x + 1, 3, None, "text", 2.5, True), (X,)),
    *cases("named_tuple", lambda m, x, y: Point(x + 1, y), (X, Y)),
    *cases("dataclass", lambda m, x, y: Found(x + 1, [y * 2]), (X, Y)),
    *cases("ordered", lambda m, x, y: collections.OrderedDict(b=x + 1, a=y * 2), (X, Y)),
    *cases("no_dimensions", lambda m, x: (x * 2, x.sum(), x + torch.tensor(1.0)),
           (torch.tensor(2.0),)),
    # The stock runtime's Python binding refuses an empty tensor's strides.
    *cases("empty", lambda m, x: (x * 2, torch.cat([x, x]), x.sum()), (torch.empty(0, 3),),
           stock=False),
    *cases("truths", lambda m, t, x: (t & (x > 0), torch.where(t, x, -x), ~t),
           (torch.tensor([True, False, True]), VECTOR)),
    *cases("constant_types",
           lambda m, x: (x.double() + m.d, (x > 0) & m.b, x.long() + m.i, m.h + x.half(), m.e),
           (X,),
           buffers={"d": VECTOR.double(), "b": torch.tensor([True, False, True]),
                    "i": torch.arange(3), "h": VECTOR.half(), "e": torch.empty(0)}),
    *cases("integers_in", lambda m, i, x: x[i] + 1, (torch.tensor([1, 0]), X)),
    *cases("channels_last_in", lambda m, x: (F.max_pool2d(x, 2), x * 2, x.permute(0, 2, 3, 1)),
           (IMAGE.to(memory_format=torch.channels_last),)),
    *cases("to_channels_last", lambda m, x: x.to(memory_format=torch.channels_last) * 2, (IMAGE,)),
    *cases("to_channels_last_3d",
           lambda m, x: (x.to(torch.float64, memory_format=torch.channels_last_3d),
                         x.clone(memory_format=torch.channels_last_3d) + 1),
           (_random(1, 2, 3, 4, 4),)),
    *models("keywords", lambda: (
        Keywords(),
        [((X,), {"scale": Y, "other": X}), ((Y,), {"other": Y, "scale": X})],
    )),
    *models("counter", lambda: (Counter(), [(X,), (Y,), (X,)])),
    *models("cache", lambda: (
        Cache(), [(X, torch.tensor([0, 2])), (Y, torch.tensor([1, 2]))],
    )),
    *models("swap", lambda: (Swap(), [(VECTOR,), (VECTOR,), (VECTOR,)])),
    *models("shared_weights", lambda: (SharedWeights(), [(_random(2, 64),)])),
]  # fmt: skip

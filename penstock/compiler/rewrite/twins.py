"""What stands for an integer or boolean tensor among float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import edit
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten

#: Whole numbers below this are exact in float32.
EXACT = float(1 << 24)


@dataclass(frozen=True)
class Places:
    """Of a tensor of indices: its shape and behind it a dimension as long as what they point into,
    with a 1 at the place of each and zeros elsewhere."""

    rows: Node

    @property
    def extent(self) -> int:
        return int(self.rows.meta["val"].shape[-1])


@dataclass(frozen=True)
class Number:
    """Of integers, or of a mask: the same numbers, from ``least`` to ``most``."""

    value: Node
    least: float
    most: float


Twin: TypeAlias = "Places | Number"


class Maker:
    """Makes nodes beside those of the model, and remembers which stand for what."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.sizes = SizeNodes(module)
        self.twins: dict[Node, Twin] = {}
        self.made: list[Node] = []

    def call(self, origin: Node, target: Any, *args: Any) -> Node:
        self.made.append(edit.call(self.module, origin, target, *args))
        return self.made[-1]

    def constant(self, origin: Node, value: torch.Tensor) -> Node:
        return edit.get_attribute(self.module, origin, value, "_numbers")

    def reshaped(self, origin: Node, node: Node, *behind: int) -> Node:
        """``node`` in the shape of ``origin``'s result, and ``behind`` it."""
        shape = self.sizes.replace(list(origin.meta["val"].shape))
        return self.call(origin, aten.reshape.default, node, [*shape, *behind])

    def mask(self, origin: Node, number: Node) -> Node:
        """Zeros and ones as a mask."""
        return self.call(origin, aten.gt.Scalar, number, 0.5)

    def numbers(self, origin: Node, mask: Node) -> Node:
        return self.call(origin, aten.to.dtype, mask, torch.float32)

    def value(self, origin: Node, item: Any) -> Any:
        """An operand in float32, or a number; ``None`` where nothing stands for it."""
        if not isinstance(item, Node):
            return item if isinstance(item, (bool, int, float)) else None
        twin = self.twins.get(item)
        if isinstance(twin, Number):
            return twin.value
        val = item.meta.get("val")
        if not isinstance(val, torch.Tensor) or twin is not None:
            return None
        if val.dtype is torch.float32:
            return item
        constant = self.known(item)
        if constant is None or constant.is_floating_point() or constant.is_complex():
            return None
        return self.constant(origin, constant.to(torch.float32))

    def bounds(self, item: Any) -> tuple[float, float] | None:
        """From where to where whole numbers go."""
        if isinstance(item, (bool, int)):
            return float(item), float(item)
        if not isinstance(item, Node):
            return None
        twin = self.twins.get(item)
        if isinstance(twin, Number):
            return twin.least, twin.most
        constant = self.known(item)
        if constant is None or constant.is_floating_point() or constant.numel() == 0:
            return None
        return float(constant.min()), float(constant.max())

    def known(self, item: Any) -> torch.Tensor | None:
        """The value of a constant."""
        if not isinstance(item, Node) or item.op != "get_attr":
            return None
        return attribute(self.module, str(item.target))

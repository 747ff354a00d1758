"""What an operator entry is, and the table of all entries.

An operator is said once: the ATen overloads it answers to, its constraints, its lowering to
XNNPACK nodes, and how it quantizes. The partitioner, the quantizer, the documents and the error
messages all read it from here. Entries stand in the family modules beside this file; each is
registered by decorating its lowering with :func:`operator`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.fx import Node

if TYPE_CHECKING:
    from penstock.compiler.delegate.lowering.builder import GraphBuilder
    from penstock.compiler.delegate.lowering.tensor import Tensor

Lowering: TypeAlias = "Callable[[GraphBuilder, Node], Tensor | tuple[Tensor, ...]]"
#: Returns why the node cannot go to XNNPACK, or ``None`` when it can.
Constraint: TypeAlias = Callable[[Node], "str | None"]


@dataclass(frozen=True)
class Weighted:
    """Convolutions and linear: int8 activation times int8 weight, int32 bias.

    ``channel_axis`` is the weight's output-channel dimension (a function of the node where it
    depends on the arguments). ``dynamic`` says whether XNNPACK has the operator, or this node,
    with an activation that is quantized at run time.
    """

    input: int = 0
    weight: int = 1
    bias: int | None = 2
    channel_axis: int | Callable[[Node], int] = 0
    dynamic: bool | Callable[[Node], bool] = False

    def is_dynamic(self, node: Node) -> bool:
        """Whether XNNPACK has ``node`` with an activation that is quantized at run time."""
        return self.dynamic(node) if callable(self.dynamic) else self.dynamic


@dataclass(frozen=True)
class Independent:
    """Every input in ``inputs`` (argument positions) and the output have their own parameters.

    ``fits`` says of the scales of the inputs and of the output whether XNNPACK computes with them;
    where it does not, the operator is computed in float between conversions. ``adds``: it is a sum
    or a difference, which may be much smaller than what goes in."""

    inputs: tuple[int, ...] = (0,)
    fits: Callable[[Sequence[float], float], bool] | None = None
    adds: bool = False


@dataclass(frozen=True)
class Shared:
    """The output and every input in ``inputs`` use one pair of parameters: operators that move or
    select values without changing them. An argument may be a list of tensors (concatenation).
    ``blends``: it averages, so that what its inputs lose at the ends of their range shows."""

    inputs: tuple[int, ...] = (0,)
    blends: bool = False


@dataclass(frozen=True)
class OutputRange:
    """The output has parameters of its own, and the inputs are read in these: operators that move
    or select values and bring in some of their own (padding by a number, a clamp to a range beyond
    zero). The range of their inputs may not hold those."""

    inputs: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class FixedOutput:
    """The output's range is known, so are its int8 parameters (sigmoid, tanh, softmax)."""

    scale: float
    zero_point: int
    inputs: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Recurrent:
    """Layers and cells whose weights are int8, with a scale for each output channel, and whose
    inputs are quantized at run time: their state too, anew in each step.

    ``weights`` gives the matrices of a node, ``against`` says why a node stays in float."""

    weights: Callable[[Node], Sequence[Node]]
    against: Constraint
    inputs: tuple[int, ...] = (0,)


QuantizationRule: TypeAlias = (
    "Weighted | Independent | Shared | OutputRange | FixedOutput | Recurrent"
)
#: Returns the rule of a node that the entry's own rule does not fit, else ``None``.
SpecialRule: TypeAlias = Callable[[Node], "QuantizationRule | None"]


def constant_attributes(node: Node) -> str | None:
    """Numbers that are attributes of nodes (slopes, bounds, factors) may not come from a size. An
    operand may: it is a tensor of one value."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    for position, argument in enumerate(node.target._schema.arguments):
        given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        if isinstance(given, Node) and argument.name not in ("other", "fill_value"):
            kind = str(argument.type).removeprefix("Optional[").removesuffix("]")
            if kind in ("float", "number"):
                return f"its {argument.name} is computed at run time, XNNPACK needs a constant"
    return None


@dataclass(frozen=True)
class Operator:
    """One entry of the table.

    ``name`` is what documents call it; ``targets`` the ATen overloads it answers to; ``lower``
    builds its nodes; ``constraints`` are asked in order, the first reason wins. ``quantization``
    is ``None`` for operators that stay in floating point; ``special_rule`` knows the nodes that
    quantize otherwise (its docstring says which). ``is_clamp`` marks activations that the
    preceding node can take over as its output range (relu, relu6, hardtanh, clamp).
    """

    name: str
    targets: tuple[Any, ...]
    lower: Lowering
    constraints: tuple[Constraint, ...] = ()
    quantization: QuantizationRule | None = None
    special_rule: SpecialRule | None = None
    is_clamp: bool = False
    notes: str = ""

    def rule_for(self, node: Node) -> QuantizationRule | None:
        """How ``node`` quantizes; ``None`` when it stays in floating point."""
        if constant_attributes(node) is not None:
            return None
        special = self.special_rule(node) if self.special_rule is not None else None
        return special or self.quantization

    def reason_against(self, node: Node) -> str | None:
        """Why ``node`` cannot be lowered by this entry, or ``None``."""
        for constraint in (constant_attributes, *self.constraints):
            reason = constraint(node)
            if reason is not None:
                return reason
        return None


_ENTRIES: list[Operator] = []
_BY_TARGET: dict[Any, Operator] = {}
_loaded = False


def operator(
    name: str,
    *targets: Any,
    constraints: Sequence[Constraint] = (),
    quantization: QuantizationRule | None = None,
    special_rule: SpecialRule | None = None,
    is_clamp: bool = False,
    notes: str = "",
) -> Callable[[Lowering], Lowering]:
    """Registers the decorated lowering as the entry ``name`` for the overloads ``targets``."""

    def register(lower: Lowering) -> Lowering:
        entry = Operator(
            name, targets, lower, tuple(constraints), quantization, special_rule, is_clamp, notes
        )
        _ENTRIES.append(entry)
        for target in targets:
            if target in _BY_TARGET:
                raise ValueError(f"{target} has two entries: {_BY_TARGET[target].name}, {name}")
            _BY_TARGET[target] = entry
        return lower

    return register


def _load() -> None:
    global _loaded
    if not _loaded:
        _loaded = True
        package = importlib.import_module("penstock.compiler.delegate.operators")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def entries() -> Sequence[Operator]:
    """All entries, in the order of their registration."""
    _load()
    return tuple(_ENTRIES)


def find(target: Any) -> Operator | None:
    """The entry that answers to an ATen overload. In-place overloads (``aten.relu_.default``)
    answer with the entry of their functional twin, so that graphs straight from
    ``torch.export`` can be asked too."""
    _load()
    entry = _BY_TARGET.get(target)
    if entry is None and isinstance(target, torch._ops.OpOverload):
        functional = functional_twin(target)
        entry = _BY_TARGET.get(functional) if functional is not None else None
    return entry


#: What Python's ``&=``, ``|=`` and ``^=`` call, and the same as a function.
_LOGIC_IN_PLACE = {
    "__iand__": "bitwise_and", "__ior__": "bitwise_or", "__ixor__": "bitwise_xor",
}  # fmt: skip


def functional_twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """``aten.add_.Tensor`` → ``aten.add.Tensor``; ``None`` where there is no such twin."""
    if target is torch.ops.aten.normal_.default:
        return torch.ops.aten.normal_functional.default
    packet_name = target._schema.name.split("::")[1]
    name = _LOGIC_IN_PLACE.get(packet_name, packet_name.removesuffix("_"))
    if name == packet_name or name.endswith("_"):
        return None
    packet = getattr(getattr(torch.ops, target.namespace), name, None)
    if packet is None or target._overloadname not in packet.overloads():
        return None
    twin = getattr(packet, target._overloadname)
    return twin if isinstance(twin, torch._ops.OpOverload) else None

"""Calibration: the graph runs on batches of data while observers watch its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from types import FunctionType
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from penstock.compiler.delegate.operators.registry import OutputRange
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.progress import Progress
from penstock.compiler.quantize.decision import Plan, blends, hands_on
from penstock.compiler.quantize.infinities import (
    MINUS_INFINITY,
    keep_masks_in_float,
    kinds_in,
    may_be_mask,
    origin_error,
)
from penstock.compiler.quantize.interpreter import GraphInterpreter
from penstock.compiler.quantize.observers import ActivationObserver
from penstock.compiler.quantize.prepared import observed
from penstock.compiler.quantize.pt2e import UniformQuantizationObserverBase
from penstock.compiler.quantize.small_results import (
    keep_cancellations_in_float,
    keep_overflows_in_float,
)
from penstock.compiler.quantize.values import is_constant
from penstock.errors import QuantizationError

#: What a caller may give as one batch: the positional inputs, the one input, or inputs by name.
Batch: TypeAlias = "Sequence[Any] | torch.Tensor | Mapping[str, Any]"


class Batches:
    """Calibration data as flat lists of placeholder values, each batch checked.

    ``data`` is iterated once for each ``iter()``. A batch is a tuple or list of the positional
    inputs, a mapping of inputs by name, or the tensor itself for models with one input. NumPy
    arrays are taken for tensors.

    Iterating raises :class:`QuantizationError` that names the batch, the input, and what was
    expected and found.
    """

    def __init__(
        self,
        module: GraphModule,
        example_args: Sequence[Any],
        example_kwargs: Mapping[str, Any],
        data: Iterable[Batch] | None,
        kind: str = "calibration",
    ) -> None:
        self.kind = kind
        self.placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        self.example_args = tuple(example_args)
        self.example_kwargs = dict(example_kwargs)
        self.examples = pytree.tree_leaves((self.example_args, self.example_kwargs))
        if len(self.examples) != len(self.placeholders):
            raise QuantizationError(
                f"the graph takes {len(self.placeholders)} inputs, the example inputs hold "
                f"{len(self.examples)}"
            )
        self.data = None if data is None else _iterable(data, kind)

    @property
    def structure(self) -> pytree.TreeSpec:
        """Of (args, kwargs)."""
        return pytree.tree_structure((self.example_args, self.example_kwargs))

    @property
    def count(self) -> int | None:
        """How many batches there are, where that can be known without reading them."""
        if self.data is None:
            return 1
        return len(self.data) if isinstance(self.data, Sized) else None

    def again(self) -> Batches:
        """The same batches, or the example inputs when the data could be read only once."""
        if not isinstance(self.data, Iterator):
            return self
        copy = object.__new__(Batches)
        copy.__dict__.update(self.__dict__, data=None)
        return copy

    def others(self, data: Iterable[Batch], kind: str) -> Batches:
        """Other data for the same model; messages call it ``kind``."""
        copy = object.__new__(Batches)
        copy.__dict__.update(self.__dict__, data=_iterable(data, kind), kind=kind)
        return copy

    def kept(self) -> Batches:
        """The same batches, which can be read again; what can be read once is read now."""
        if not isinstance(self.data, Iterator):
            return self
        copy = object.__new__(Batches)
        copy.__dict__.update(self.__dict__, data=list(self.data))
        return copy

    def __iter__(self) -> Iterator[list[Any]]:
        if self.data is None:
            yield list(self.examples)
            return
        empty = True
        for index, batch in enumerate(self.data):
            empty = False
            yield self._checked(index, self._flat(index, batch))
        if empty:
            raise QuantizationError(
                f"the {self.kind} data holds no batch; give at least one, or leave it out to take "
                "the example inputs"
            )

    def _flat(self, index: int, batch: Batch) -> list[Any]:
        args, kwargs = self._arguments(index, batch)
        leaves, found = pytree.tree_flatten((args, kwargs))
        _, expected = pytree.tree_flatten((self.example_args, self.example_kwargs))
        if found != expected:
            raise QuantizationError(
                f"{self.kind} batch {index}: expected {_inputs(len(self.examples))} structured "
                f"like the example inputs, found {_inputs(len(leaves))}{self._as_given()}"
            )
        return leaves

    def _as_given(self) -> str:
        names = ", ".join(node.name for node in self.placeholders)
        return f"; give what the model takes and no more: {names}"

    def _arguments(self, index: int, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The batch as (args, kwargs) in the example inputs' order."""
        if isinstance(batch, Mapping):
            return self._by_name(index, batch)
        items = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        positional, named = len(self.example_args), list(self.example_kwargs)
        if len(items) != positional + len(named):
            raise QuantizationError(
                f"{self.kind} batch {index}: expected {_inputs(positional + len(named))}, "
                f"found {len(items)}{self._as_given()}"
            )
        return items[:positional], dict(zip(named, items[positional:], strict=True))

    def _by_name(
        self, index: int, batch: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = set(self.example_kwargs)
        positional: list[str] = []
        if len(self.example_args) + len(named) == len(self.placeholders):
            positional = [node.name for node in self.placeholders[: len(self.example_args)]]
        expected = [*positional, *self.example_kwargs]
        if set(batch) == set(expected):
            args = tuple(batch[name] for name in positional)
            return args, {name: batch[name] for name in self.example_kwargs}
        raise QuantizationError(
            f"{self.kind} batch {index}: expected the inputs {', '.join(expected)}, "
            f"found {', '.join(map(str, batch)) or 'none'}; give these names and no more"
        )

    def _checked(self, index: int, leaves: list[Any]) -> list[Any]:
        checked = [
            self._checked_input(index, node, example, value)
            for node, example, value in zip(self.placeholders, self.examples, leaves, strict=True)
        ]
        tensors = [value for value in checked if isinstance(value, torch.Tensor)]
        if tensors and not any(value.numel() for value in tensors):
            raise QuantizationError(
                f"{self.kind} batch {index} is empty ({_describe(tensors[0])}); leave it out"
            )
        return checked

    def _checked_input(self, index: int, node: Node, example: Any, value: Any) -> Any:
        where = f"{self.kind} batch {index}, input {node.name}"
        if not isinstance(example, torch.Tensor):
            if value != example:
                raise QuantizationError(f"{where}: expected {example!r}, found {value!r}")
            return example
        if not isinstance(value, torch.Tensor):
            try:
                value = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError):
                raise QuantizationError(
                    f"{where}: expected a tensor, found a {type(value).__name__}"
                ) from None
        expected = node.meta.get("val", example)
        if value.is_meta or value.layout != torch.strided:
            kind = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
            raise QuantizationError(
                f"{where}: expected a dense tensor with values, found a {kind} one"
            )
        if value.dtype != expected.dtype or not _shape_fits(expected.shape, value.shape):
            raise QuantizationError(
                f"{where}: expected {_describe(expected)}, found {_describe(value)}; "
                f"{_advice(expected, value)}"
            )
        return value.detach().to(example.device)


def _iterable(data: Iterable[Batch], kind: str) -> Iterable[Batch]:
    if isinstance(data, (torch.Tensor, str, Mapping)) or not isinstance(data, Iterable):
        found = type(data).__name__
        if isinstance(data, FunctionType):
            raise QuantizationError(f"{kind} is a function; call it and give the batches it makes")
        if hasattr(data, "__getitem__") and not isinstance(data, (torch.Tensor, str, Mapping)):
            raise QuantizationError(
                f"{kind} is a {found}, which has single samples; give its batches, as a "
                "torch.utils.data.DataLoader makes them"
            )
        raise QuantizationError(
            f"{kind} must be an iterable of input tuples, not one {found}; "
            "put a single batch in a list"
        )
    return data


def _shape_fits(expected: Sequence[Any], found: Sequence[int]) -> bool:
    """Whether every static dimension is the same; a dynamic one (a symbol) fits any size."""
    return len(expected) == len(found) and all(
        not isinstance(size, int) or size == other
        for size, other in zip(expected, found, strict=True)
    )


def _describe(tensor: torch.Tensor) -> str:
    sizes = ", ".join(map(str, tensor.shape))
    return f"{str(tensor.dtype).removeprefix('torch.')} [{sizes}]"


def _advice(expected: torch.Tensor, found: torch.Tensor) -> str:
    if expected.dtype != found.dtype:
        return "convert it to the dtype that the model takes"
    if expected.dim() == found.dim() + 1:
        return "give whole batches, with all dimensions of the example inputs"
    return "give the sizes of the example inputs, or lower with dynamic_shapes for others"


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"


class Looks:
    """Which observers of a graph that was prepared by ``plan`` have nothing to look at.

    An operator that moves or selects values has one observer for what it reads and what it makes.
    That looks at what is made, at the end of a chain of them: what a pooling by maximum, a clamp or
    a slice leaves out needs no place in the range, and if a range cuts it off before, the results
    are the same. Where such an operator also averages, what it reads decides, and holds what it
    makes."""

    def __init__(self, plan: Plan) -> None:
        static = [decision for decision in plan.quantized if not decision.is_dynamic]
        self.averages = {d.result.name for d in static if blends(d.rule)}
        self.hands_on = {d.node.name for d in static if hands_on(d.rule)}
        self.own_range = {d.node.name for d in static if isinstance(d.rule, OutputRange)}

    def skips(self, n: Node) -> bool:
        source = n.args[0]
        assert isinstance(source, Node)
        return source.name in self.averages or all(u.name in self.hands_on for u in n.users)

    def pass_by(self, n: Node) -> bool:
        """Whether the values of one that is skipped count where little is seen."""
        return not all(u.name in self.own_range for u in n.users)


class _Calibration(GraphInterpreter):
    """Lets each observer see each value once. (A weight does not change between batches.)"""

    def __init__(self, module: GraphModule, plan: Plan) -> None:
        super().__init__(module)
        self.prepared = module
        self.looks = Looks(plan)
        #: observers of values that hold minus infinity where that may be
        self.masks: set[Any] = set()
        self.seen: set[Node] = set()

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module":
            (source,) = n.args
            if not isinstance(source, Node) or n.target == "_guards_fn":
                return super().run_node(n)
            if n in self.seen:
                return self.env[source]
            if self.looks.skips(n):
                observer = self.module.get_submodule(str(n.target))
                if isinstance(observer, ActivationObserver) and self.looks.pass_by(n):
                    observer.pass_by(self.env[source])
                return self.env[source]
            if is_constant(source):
                self.seen.add(n)
        value = super().run_node(n)
        if n.op == "call_module":
            self._look_at(n, value)
        return value

    def _look_at(self, n: Node, value: Any) -> None:
        observer = self.module.get_submodule(str(n.target))
        if not isinstance(observer, ActivationObserver) or observer.saw_finite:
            return
        source = observed(self.prepared, n)
        if kinds_in(value) != [MINUS_INFINITY] or not may_be_mask(source):
            raise _Spoilt(source)
        self.masks.add(observer)


class _Spoilt(Exception):
    """A value holds what no range can: NaN, or an infinity where none belongs."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node


def calibrate(prepared: GraphModule, batches: Batches, progress: Progress, plan: Plan) -> int:
    """Shows ``batches`` to the observers of a graph that ``prepare_pt2e`` made by ``plan``, and
    returns how many there were.

    The batches are calls of the model one after the other: what the first leaves in a buffer, the
    second finds there. Operators that compute with masks go back to float, in graph and plan; so do
    layers whose sums are too large for their result.

    Raises :class:`QuantizationError` that names the batch, and the first operator, where NaN or an
    infinity would spoil a range, and where the model fails on a batch.
    """
    _require_numbers(prepared)
    runner = _Calibration(prepared, plan)
    index = -1
    with progress.stage("calibrate", batches.count) as stage:
        for index, values in enumerate(batches):
            before = dict(runner.state)
            name = "the example inputs" if batches.data is None else f"calibration batch {index}"
            try:
                runner.run_flat(values)
            except _Spoilt as found:
                raise origin_error(prepared, values, before, found.node, name) from None
            except (RuntimeError, IndexError, ValueError) as error:
                first = str(error).strip().splitlines() or [type(error).__name__]
                raise QuantizationError(f"{name}: the model fails on it: {first[0]}") from error
            stage.advance()
    keep_masks_in_float(prepared, plan, runner.masks)
    keep_overflows_in_float(prepared, plan)
    keep_cancellations_in_float(prepared, plan)
    return index + 1


def _require_numbers(prepared: GraphModule) -> None:
    """Of the constants that are to become int8."""
    for _, node in _observed_constants(prepared):
        if kinds := kinds_in(attribute(prepared, str(node.target))):
            raise QuantizationError(
                f"the constant {node.target} holds {' and '.join(kinds)}, which has no int8; "
                "repair the model's weights, or keep what reads them in float (skip)"
            )


def observe_constants(prepared: GraphModule) -> None:
    """Shows the weights to their observers. All that a dynamic scheme needs."""
    _require_numbers(prepared)
    for observer, node in _observed_constants(prepared):
        observer(attribute(prepared, str(node.target)))


def _observed_constants(prepared: GraphModule) -> Iterator[tuple[Any, Node]]:
    """(observer, constant)"""
    for node in prepared.graph.nodes:
        if node.op != "call_module" or not node.args:
            continue
        source = node.args[0]
        observer = prepared.get_submodule(str(node.target))
        if not isinstance(observer, UniformQuantizationObserverBase):
            continue
        if isinstance(source, Node) and is_constant(source):
            yield observer, source

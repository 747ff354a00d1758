"""Where a model looks at values, and what it sees is no part of its answer, or a constant.

``torch.export`` runs a model on stand-ins for tensors, which have no values to look at. It stops

- at lines that only look: ``assert not x.isnan().any()``, ``print(f"{x.mean():.3f}")``;
- at branches on weights and buffers: ``if self.initialized:``, ``if self.scale > 1:``.

So the model is called once with its examples, and such looks of the trace get what they saw then.
"""

from __future__ import annotations

import ast
import linecache
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeAlias, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from penstock.compiler.capture.failures import calling_frame

Result = TypeVar("Result")
Tensor = torch.Tensor

#: What gives a tensor's values to Python.
_LOOKS = {
    Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__format__,
    Tensor.__contains__, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.is_nonzero,
    torch.is_nonzero, Tensor.equal, torch.equal, Tensor.allclose, torch.allclose,
}  # fmt: skip

#: What may be given a number without it being a size or a place, which may be dynamic.
_COMPARISONS = {
    getattr(owner, name)
    for owner in (Tensor, torch)
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__",
                 "__gt__", "__ge__")
    if hasattr(owner, name)
}  # fmt: skip

#: What says something, by name or as a method of what is called so.
_SAYS = {"print", "warn"}
_SAYERS = {"logging", "logger", "log", "warnings", "console"}

#: File, line and function of a look.
Place: TypeAlias = "tuple[str, int, Any]"


@dataclass(frozen=True)
class _Seen:
    """``anew``: whether it is not known, and to be asked of the trace; ``owned``: the weights and
    buffers that it was computed of."""

    value: Any = None
    anew: bool = False
    owned: frozenset[str] = frozenset()


class Looks(TorchFunctionMode):
    """What ``model`` saw during :meth:`watch`. ``with looks.again():`` gives that once more."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model
        self._seen: dict[Place, list[_Seen]] = defaultdict(list)
        self._lines: dict[str, set[int]] = {}
        #: tensors that are computed of weights and buffers alone: their version, and of which
        self._constants: Any = WeakIdKeyDictionary()

    def watch(self, call: Callable[[], Result]) -> Result:
        before = self._owned()
        for name, (tensor, version) in before.items():
            self._constants[tensor] = (version, frozenset({name}))
        with self:
            result = call()
        after = self._owned()
        changed = {
            name
            for name, (tensor, version) in before.items()
            if name not in after or after[name][0] is not tensor or after[name][1] != version
        }
        for seen in self._seen.values():
            seen[:] = [_Seen(anew=True) if one.owned & changed else one for one in seen]
        return result

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return any(not one.anew for seen in self._seen.values() for one in seen)

    def again(self) -> TorchFunctionMode:
        return _Again({place: deque(seen) for place, seen in self._seen.items()})

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        owned = self._computed_of(func, pytree.tree_leaves((args, kwargs)))
        drawn = None if owned is None else torch.get_rng_state()
        result = func(*args, **(kwargs or {}))
        if drawn is not None and not torch.equal(drawn, torch.get_rng_state()):
            owned = None  # random numbers, one for each weight
        if func in _LOOKS:
            frame = calling_frame()
            known = owned is not None or self._only_looks(frame)
            seen = _Seen(result, owned=owned or frozenset()) if known else _Seen(anew=True)
            self._seen[_place(frame, func)].append(seen)
        elif owned is not None and isinstance(result, Tensor):
            self._constants[result] = (result._version, owned)
        return result

    def _owned(self) -> dict[str, tuple[Tensor, int]]:
        both = (*self._model.named_parameters(), *self._model.named_buffers())
        return {name: (tensor, tensor._version) for name, tensor in both}

    def _computed_of(self, func: Any, leaves: Sequence[Any]) -> frozenset[str] | None:
        """Which weights and buffers the tensors among ``leaves`` are computed of, where they are of
        nothing else."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        numbers = any(isinstance(leaf, int) and not isinstance(leaf, bool) for leaf in leaves)
        found = [self._constants.get(tensor) for tensor in tensors]
        if not found or None in found or (numbers and func not in _COMPARISONS):
            return None
        if any(tensor._version != one[0] for tensor, one in zip(tensors, found, strict=True)):
            return None
        return frozenset().union(*(one[1] for one in found))

    def _only_looks(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        if file not in self._lines:
            self._lines[file] = _lines(frame)
        return frame.f_lineno in self._lines[file]


class _Again(TorchFunctionMode):
    def __init__(self, left: dict[Place, deque[_Seen]]) -> None:
        super().__init__()
        self._left = left

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        left = self._left.get(_place(calling_frame(), func)) if func in _LOOKS else None
        seen = left.popleft() if left else None
        if seen is None or seen.anew:
            return func(*args, **(kwargs or {}))
        return seen.value


def _place(frame: FrameType, func: Any) -> Place:
    return frame.f_code.co_filename, frame.f_lineno, func


def _lines(frame: FrameType) -> set[int]:
    """The lines of a frame's file in which nothing stands but what only looks."""
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    looking: set[int] = set()
    other: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            for part in _own(node):
                lines = range(part.lineno, (part.end_lineno or part.lineno) + 1)
                (looking if _only_looks(node) else other).update(lines)
    return looking - other


def _own(statement: ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    """A statement without those that stand in it."""
    if not hasattr(statement, "body"):
        yield statement
    else:
        yield from (part for part in ast.iter_child_nodes(statement) if isinstance(part, ast.expr))


def _only_looks(statement: ast.stmt) -> bool:
    """Whether what a statement finds decides of nothing but an error, or of what is said."""
    if any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement)):
        return False
    if isinstance(statement, ast.If):
        body = statement.body
        ends = isinstance(body[-1], ast.Raise)
        return all(map(_only_looks, body if ends else [*body, *statement.orelse]))
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return _says(statement.value.func)
    return isinstance(statement, (ast.Assert, ast.Raise, ast.Pass))


def _says(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        owner = function.value
        name = getattr(owner, "attr", getattr(owner, "id", ""))
        return name.strip("_").lower() in _SAYERS
    return isinstance(function, ast.Name) and function.id in _SAYS

"""Example inputs with a dynamic dimension of size 0 or 1, which torch.export takes for fixed.

They are widened before the capture: the rows that are there are repeated, alike in all inputs that
share the dimension, or have one derived from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim, ShapesCollection
from torch.utils import _pytree as pytree

from penstock.errors import InputError
from penstock.text import counted

#: The smallest size that torch.export does not take for fixed.
LEAST = 2


@dataclass(frozen=True)
class Use:
    """Where a dynamic dimension stands: dimension ``dim`` of the input called ``name``. Its size is
    ``size_of(root)``, of which ``least`` and ``most`` are the bounds; ``key`` says whose root."""

    tensor: torch.Tensor
    name: str
    dim: int
    key: object
    size_of: Callable[[int], int]
    least: int
    most: int | None
    text: str

    @property
    def root(self) -> int | None:
        """The root's size in the example, where it can be told."""
        start, size = self.size_of(0), self.tensor.shape[self.dim]
        slope = self.size_of(1) - start
        exact = slope > 0 and size >= start and (size - start) % slope == 0
        return (size - start) // slope if exact else None


def widened(model: torch.nn.Module, inputs: Any, dynamic_shapes: Any) -> tuple[Any, list[str]]:
    """``inputs``, (args, kwargs), with every dynamic dimension of size 2 or more; and what was done
    to them, in words.

    Raises :class:`InputError` where a dimension's bound allows no such size.
    """
    args, kwargs = inputs
    uses = list(_uses(model, args, kwargs, dynamic_shapes))
    targets: dict[object, int] = {}
    for use in uses:
        root = use.root
        if root is not None and root < LEAST:
            targets[use.key] = max(LEAST, use.least)
            if use.most is not None and use.most < targets[use.key]:
                raise InputError(
                    f"dimension {use.dim} of input {use.name} is dynamic and at most {use.most}"
                    f" ({use.text}): torch.export takes the sizes 0 and 1 for fixed; give it a"
                    " larger max, or do not declare it dynamic"
                )
    sizes: dict[int, dict[int, int]] = {}
    said = []
    for use in uses:
        if use.key in targets:
            size = use.size_of(targets[use.key])
            sizes.setdefault(id(use.tensor), {})[use.dim] = size
            said.append(f"dimension {use.dim} of {use.name} to {size}")

    def wide(value: Any) -> Any:
        for dim, size in sizes.get(id(value), {}).items():
            value = _repeated(value, dim, size)
        return value

    return (pytree.tree_map(wide, inputs) if sizes else inputs), said


def _repeated(x: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    if x.shape[dim] == 0:
        return x.new_zeros(*x.shape[:dim], size, *x.shape[dim + 1 :])
    return x.index_select(dim, torch.arange(size) % x.shape[dim])


def _uses(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Any
) -> Iterator[Use]:
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    if isinstance(shapes, ShapesCollection):
        shapes = shapes.dynamic_shapes(model, tuple(args), dict(kwargs))
    if isinstance(shapes, (tuple, list)):
        shapes = dict(zip(given, shapes, strict=False))
    if isinstance(shapes, Mapping):
        for name, value in given.items():
            yield from _walk(name, value, shapes.get(name))


def _walk(name: str, value: Any, spec: Any) -> Iterator[Use]:
    if spec is None:
        return
    if isinstance(value, torch.Tensor):
        for dim, size in _dimensions(name, value, spec):
            found = _use(value, name, dim, size)
            if found is not None:
                yield found
    elif isinstance(value, Mapping) and isinstance(spec, Mapping):
        for key, item in value.items():
            yield from _walk(f"{name}[{key!r}]", item, spec.get(key))
    elif isinstance(value, (tuple, list)) and isinstance(spec, (tuple, list)):
        for position, (item, part) in enumerate(zip(value, spec, strict=False)):
            yield from _walk(f"{name}[{position}]", item, part)


def _dimensions(name: str, value: torch.Tensor, spec: Any) -> Iterator[tuple[int, Any]]:
    """Entries for the dimensions of one tensor, as torch.export reads them."""
    rank = value.dim()
    if isinstance(spec, Mapping):
        for dim, size in spec.items():
            if isinstance(dim, bool) or not isinstance(dim, int) or not -rank <= dim < rank:
                raise InputError(
                    f"dynamic_shapes has an entry for dimension {dim!r} of input {name}, which has"
                    f" {counted(rank, 'dimension')}; give numbers from 0 on"
                )
            yield dim % rank, size
    elif isinstance(spec, (tuple, list)):
        yield from enumerate(spec[:rank])


def _use(tensor: torch.Tensor, name: str, dim: int, size: Any) -> Use | None:
    """``None`` for sizes that are fixed."""
    root = getattr(size, "root", None)
    if isinstance(root, Dim):  # a size computed of another one
        return Use(tensor, name, dim, root.__name__, size.fn, root.min, root.max, size.__name__)
    if isinstance(size, Dim) and not hasattr(size, "value"):
        return Use(tensor, name, dim, size.__name__, int, size.min, size.max, size.__name__)
    if size in (Dim.DYNAMIC, Dim.AUTO) or getattr(size, "type", None) in _HINTS:
        least, most = getattr(size, "min", None) or 0, getattr(size, "max", None)
        return Use(tensor, name, dim, (id(tensor), dim), int, least, most, "Dim.DYNAMIC")
    return None


_HINTS = tuple(hint.type for hint in (Dim.DYNAMIC, Dim.AUTO))

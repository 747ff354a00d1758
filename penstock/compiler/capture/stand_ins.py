"""Models that store what they compute in themselves, while ``torch.export`` runs them on stand-ins
for tensors: a table made at the first call (``register_buffer`` in ``forward``), say. Tensors that
are neither parameters nor buffers have no stand-ins: what a model writes into them is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

Result = TypeVar("Result")


def without_stand_ins(
    model: torch.nn.Module, export: Callable[[], Result], call: Callable[[], object]
) -> Result:
    """What ``export`` gives, with the model left as it was. ``torch.export`` takes buffers that
    appear on the way for inputs, whose values they then have; such a model is called once before,
    so that its tables are there and constant."""
    stored: list[str] = []
    try:
        with _left_as_it_was(model, stored):
            exported = export()
    except Exception:
        if not stored:
            raise
    if not stored:
        return exported
    with _left_as_it_was(model, []):
        _call_on_copies(model, call)
        return export()


def called_as_it_is(model: torch.nn.Module, call: Callable[[], Result]) -> Result:
    """What ``call`` gives, with the model left as it was."""
    with _left_as_it_was(model, []):
        return _call_on_copies(model, call)


def _call_on_copies(model: torch.nn.Module, call: Callable[[], Result]) -> Result:
    contents = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        return call()
    finally:
        with torch.no_grad():
            for buffer, content in contents:
                buffer.copy_(content)


@contextmanager
def _left_as_it_was(model: torch.nn.Module, stored: list[str]) -> Iterator[None]:
    """Takes back what is stored in modules meanwhile, in dictionaries of theirs (tables by device
    or size) and in lists; ``stored`` are the names of the stand-ins among it, but in lists."""
    before = [
        (held, dict(held)) for module in model.modules() for held in _dictionaries(vars(module))
    ]
    lists = [(held, list(held)) for _, values in before for held in _lists(values)]
    contents = [(held, held._version, held.detach().clone()) for held in _unregistered(model)]
    try:
        yield
    finally:
        for tensor, version, content in contents:
            if tensor._version != version:
                tensor.detach().copy_(content)
        for items, kept in lists:
            items[:] = kept
        for held, values in before:
            stored += [name for name, value in held.items() if _new_stand_in(value, name, values)]
            for name in held.keys() - values.keys():
                del held[name]
            for name, value in values.items():
                if name not in held or held[name] is not value:
                    held[name] = value


def _dictionaries(attributes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield attributes
    yield from (value for value in attributes.values() if type(value) is dict)


def _lists(values: dict[str, Any]) -> Iterator[list[Any]]:
    yield from (value for value in values.values() if type(value) is list)


def _unregistered(model: torch.nn.Module) -> list[torch.Tensor]:
    """The tensors that modules hold as plain attributes, in lists and dictionaries too."""
    registered = ("_parameters", "_buffers", "_modules")
    held = [
        {name: value for name, value in vars(module).items() if name not in registered}
        for module in model.modules()
    ]
    return [
        leaf
        for leaf in pytree.tree_leaves(held)
        if type(leaf) in (torch.Tensor, torch.nn.Parameter) and not leaf.is_inference()
    ]


def _new_stand_in(value: Any, name: str, before: dict[str, Any]) -> bool:
    if value is before.get(name):
        return False
    return any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(value))

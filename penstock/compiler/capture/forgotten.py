"""What a model remembers from call to call in plain attributes, which no program does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from penstock.compiler.capture.dynamo import around_compilations


@contextmanager
def noting_state(model: object, forgotten: list[str]) -> Iterator[None]:
    """While ``model`` runs, notes in ``forgotten`` the attributes (``layer.h``) whose tensors or
    numbers it reads, and that get others then. Buffers are none of them: programs keep what is
    written into those. Nor is what was not there before, or None (a table that a first call makes,
    say), nor what each call writes before it reads it (a weight out of its norm and direction)."""
    if not isinstance(model, torch.nn.Module):
        yield
        return
    # By their attributes, which what stands for a module while it is captured shares with it.
    names = {id(vars(module)): name for name, module in model.named_modules()}
    read: set[tuple[int, str]] = set()
    written: set[tuple[int, str]] = set()
    original = torch.nn.Module.__setattr__

    def reading(module: torch.nn.Module, name: str) -> Any:
        value = object.__getattribute__(module, name)
        if isinstance(value, (torch.Tensor, int, float)):
            place = (id(object.__getattribute__(module, "__dict__")), name)
            if place[0] in names and place not in written:
                read.add(place)
        return value

    def noting(module: torch.nn.Module, name: str, value: Any) -> None:
        attributes = vars(module)
        place = (id(attributes), name)
        if place[0] in names and place in read and _is_another(attributes.get(name), value):
            path = ".".join(filter(None, (names[place[0]], name)))
            if path not in forgotten:
                forgotten.append(path)
        written.add(place)
        original(module, name, value)

    def look() -> None:
        torch.nn.Module.__setattr__ = noting  # type: ignore[method-assign, assignment]
        torch.nn.Module.__getattribute__ = reading  # type: ignore[method-assign, assignment]

    def look_away() -> None:
        torch.nn.Module.__setattr__ = original  # type: ignore[method-assign]
        if "__getattribute__" in vars(torch.nn.Module):
            del torch.nn.Module.__getattribute__

    look()
    try:
        # TorchDynamo, which traces branches and loops, would trace this, too.
        with around_compilations(look_away, look):
            yield
    finally:
        look_away()


def _is_another(before: Any, value: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return isinstance(value, torch.Tensor) and value is not before
    if type(before) not in (int, float):
        return False
    number = isinstance(value, (int, float, torch.SymInt, torch.SymFloat))
    return number and not (type(value) is type(before) and value == before)

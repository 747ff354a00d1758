"""What a model remembers from call to call in plain attributes, which no program does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def noting_state(model: object, forgotten: list[str]) -> Iterator[None]:
    """While ``model`` runs, notes in ``forgotten`` the attributes (``layer.h``) that were tensors
    or numbers and get others. Buffers are none of them: programs keep what is written into those.
    Nor is what was not there before, or None: a table that a first call makes, say."""
    if not isinstance(model, torch.nn.Module):
        yield
        return
    names = {id(module): name for name, module in model.named_modules()}
    original = torch.nn.Module.__setattr__

    def noting(module: torch.nn.Module, name: str, value: Any) -> None:
        before = vars(module).get(name)
        if id(module) in names and _is_another(before, value):
            path = ".".join(filter(None, (names[id(module)], name)))
            if path not in forgotten:
                forgotten.append(path)
        original(module, name, value)

    torch.nn.Module.__setattr__ = noting  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module.__setattr__ = original  # type: ignore[method-assign]


def _is_another(before: Any, value: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return isinstance(value, torch.Tensor) and value is not before
    if type(before) not in (int, float):
        return False
    number = isinstance(value, (int, float, torch.SymInt, torch.SymFloat))
    return number and not (type(value) is type(before) and value == before)

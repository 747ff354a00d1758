"""``module.to(...)`` in a model's ``forward``: ``torch.export`` cannot exchange parameters."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import torch
from torch.utils._python_dispatch import _disable_current_modes

from penstock.errors import ExportError

#: What ``torch.export`` says then.
UNCONVERTED = "_apply(): Couldn't swap"


class ConversionsOfNothing:
    """Within it a module that is converted to the types and the device that it has stays as it is.

    Raises :class:`ExportError` for every other conversion."""

    def __enter__(self) -> None:
        self._patch = mock.patch.object(torch.nn.Module, "_apply", _apply)
        self._patch.start()

    def __exit__(self, *exception: object) -> None:
        self._patch.stop()


def _apply(
    module: torch.nn.Module, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
) -> torch.nn.Module:
    tensors = [*module.parameters(recurse), *module.buffers(recurse)]
    if all(_same(function, tensor.dtype, tensor.device) for tensor in tensors):
        return module
    raise ExportError(
        f"the model converts a {type(module).__name__} of its own to another type or device while "
        "it runs, which torch.export cannot follow; convert it in __init__, or the tensors it reads"
    )


def _same(
    function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype, device: torch.device
) -> bool:
    """Asked about a tensor of no elements: of one that is traced, a conversion is a new one."""
    with _disable_current_modes():
        example = torch.empty(0, dtype=dtype, device=device)
        return function(example) is example

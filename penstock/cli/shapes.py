"""Dynamic dimensions from the command line: ``INPUT:DIM=NAME[LOW..HIGH]``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch

from penstock.cli.sources import Source
from penstock.errors import InputError

_PATTERN = re.compile(
    r"(?P<input>\w+):(?P<dim>-?\d+)=(?P<name>[A-Za-z_]\w*)\[(?P<low>\d+)\.\.(?P<high>\d+)\]"
)


def dynamic_shapes(texts: Sequence[str], source: Source) -> dict[str, Any]:
    """``["x:0=batch[1..8]", "x:1=seq[2..128]"]`` -> what ``torch.export`` takes.

    An input is named or counted from 0. The same name stands for the same size. Raises
    ``InputError`` for a text that cannot be read and an input or dimension that is not there.
    """
    inputs = _inputs(source)
    names = list(inputs)
    sizes: dict[str, Any] = {}
    shapes: dict[str, Any] = {name: {} for name in names}
    for text in texts:
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"cannot read the dynamic dimension {text!r}; write INPUT:DIM=NAME[LOW..HIGH], for "
                "example x:0=batch[1..8]"
            )
        which, dim = match["input"], int(match["dim"])
        low, high = int(match["low"]), int(match["high"])
        if which.isdigit() and int(which) < len(names):
            which = names[int(which)]
        if which not in inputs:
            raise InputError(f"there is no input {which!r}; the inputs are {', '.join(names)}")
        rank = inputs[which].dim() if isinstance(inputs[which], torch.Tensor) else 0
        if not -rank <= dim < rank:
            raise InputError(f"input {which!r} has {rank} dimensions, there is no {dim}")
        if not 0 < low <= high:
            raise InputError(f"{text!r}: the bounds must be positive and in order")
        name = match["name"]
        size = sizes.setdefault(name, torch.export.Dim(name, min=low, max=high))
        if (size.min, size.max) != (low, high):
            raise InputError(f"{name!r} has two different ranges; give it the same one everywhere")
        shapes[which][dim % rank] = size
    return {name: found or None for name, found in shapes.items()}


def _inputs(source: Source) -> dict[str, Any]:
    """The example inputs by the names of ``forward``'s parameters."""
    if not isinstance(source.model, torch.nn.Module):
        raise InputError(
            "the shapes of an exported program are fixed; export it again with dynamic shapes"
        )
    bound = inspect.signature(source.model.forward).bind(*source.args, **source.kwargs)
    return dict(bound.arguments)

"""Dynamic dimensions from the command line: ``INPUT:DIM=NAME[LOW..HIGH]``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch

from penstock.cli.sources import Source
from penstock.errors import InputError, did_you_mean

_PATTERN = re.compile(
    r"(?P<input>\w+):(?P<dim>-?\d+)=(?P<name>[A-Za-z_]\w*)(\[(?P<low>\d+)\.\.(?P<high>\d+)\])?"
)


def dynamic_shapes(texts: Sequence[str], source: Source) -> dict[str, Any]:
    """``["x:0=batch[1..8]", "x:1=seq[2..128]"]`` -> what ``torch.export`` takes.

    An input is named or counted from 0. The same name stands for the same size, whose range is
    given once. Raises ``InputError`` for a text that cannot be read and an input or dimension that
    is not there.
    """
    inputs = _inputs(source)
    shapes: dict[str, Any] = {name: {} for name in inputs}
    matches = [_matched(text) for text in texts]
    sizes = _sizes(matches)
    for match in matches:
        which = _named(match["input"], list(inputs))
        dim, example = int(match["dim"]), inputs[which]
        rank = example.dim() if isinstance(example, torch.Tensor) else 0
        if not -rank <= dim < rank:
            raise InputError(f"input {which!r} has {rank} dimensions, there is no {dim}")
        if dim % rank in shapes[which]:
            raise InputError(f"dimension {dim} of input {which!r} is given twice; give it once")
        size = sizes[match["name"]]
        if not size.min <= example.shape[dim] <= size.max:
            raise InputError(
                f"the example input {which!r} has size {example.shape[dim]} in dimension {dim}, "
                f"outside {match['name']}[{size.min}..{size.max}]; give a range that it is in"
            )
        shapes[which][dim % rank] = size
    return {name: found or None for name, found in shapes.items()}


def _matched(text: str) -> re.Match[str]:
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"cannot read the dynamic dimension {text!r}; write INPUT:DIM=NAME[LOW..HIGH], for "
            "example x:0=batch[1..8]"
        )
    return match


def _sizes(matches: Sequence[re.Match[str]]) -> dict[str, Any]:
    """The sizes by name; each has its range where it is first or anywhere, twice only the same."""
    ranges: dict[str, tuple[int, int]] = {}
    for match in matches:
        if match["low"] is None:
            continue
        name, bounds = match["name"], (int(match["low"]), int(match["high"]))
        if not 0 < bounds[0] <= bounds[1]:
            raise InputError(f"{match[0]!r}: the bounds must be positive and in order")
        if ranges.setdefault(name, bounds) != bounds:
            raise InputError(f"{name!r} has two different ranges; give it one, once is enough")
    for match in matches:
        if match["name"] not in ranges:
            raise InputError(
                f"{match[0]!r}: the range of {match['name']!r} is missing; write "
                f"{match[0]}[LOW..HIGH], for example {match[0]}[1..8]"
            )
    return {name: torch.export.Dim(name, min=low, max=high) for name, (low, high) in ranges.items()}


def _named(which: str, names: list[str]) -> str:
    if which.isdigit() and int(which) < len(names):
        return names[int(which)]
    if which not in names:
        close = did_you_mean(which, names)
        raise InputError(f"there is no input {which!r}{close}; the inputs are {', '.join(names)}")
    return which


def _inputs(source: Source) -> dict[str, Any]:
    """The example inputs by the names of ``forward``'s parameters."""
    if not isinstance(source.model, torch.nn.Module):
        raise InputError(
            "the shapes of an exported program are fixed; export it again with dynamic shapes"
        )
    try:
        bound = inspect.signature(source.model.forward).bind(*source.args, **source.kwargs)
    except TypeError as error:
        raise InputError(f"the example inputs do not fit the model's forward: {error}") from None
    return dict(bound.arguments)

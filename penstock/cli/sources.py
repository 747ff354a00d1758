"""What the user names on the command line -> a model with example inputs.

A source is the name of a zoo model, ``package.module:callable``, or the path of a ``.pt2`` archive.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penstock import zoo
from penstock.compiler.quantize.quantization import Quantization, Scheme, parse_scheme
from penstock.errors import ExportError, InputError, PenstockError
from penstock.files import readable
from penstock.zoo.images import IMAGENET, Normalization
from penstock.zoo.model import variations


@dataclass(frozen=True)
class Source:
    """A model to compile. ``model`` is an ``nn.Module`` or an ``ExportedProgram``."""

    name: str
    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # The scheme that suits it.
    scheme: Scheme
    # Gives that many input tuples; None when only the example inputs are known.
    calibration: Callable[[int], Iterable[Any]] | None = None
    dynamic_shapes: Any = None
    notice: str | None = None
    # How pictures become its input.
    normalization: Normalization = IMAGENET


def find(name: str, *, weights: str | None = None, seed: int = 0) -> Source:
    """Resolves ``name``. Raises ``InputError`` when it names nothing, ``ExportError`` for a bad
    archive."""
    if name in zoo.names():
        return _from_zoo(name, weights, seed)
    if weights is not None:
        raise InputError(f"--weights is for models of the zoo, and {name!r} is none of them")
    if name.endswith(".pt2"):
        return _from_archive(Path(name))
    if ":" in name:
        return _from_callable(name)
    zoo.entry(name)  # raises, listing the valid names
    raise AssertionError("unreachable")


def _from_zoo(name: str, weights: str | None, seed: int) -> Source:
    model = zoo.create(name, weights, seed=seed)
    return Source(
        name=name,
        model=model.module,
        args=model.args,
        kwargs=model.kwargs,
        scheme=model.quantization,
        calibration=model.calibration,
        dynamic_shapes=model.dynamic_shapes,
        notice=model.notice,
        normalization=model.normalization,
    )


def _from_archive(path: Path) -> Source:
    readable(path, "archive")
    try:
        program = torch.export.load(os.fspath(path))
    except Exception as error:  # whatever the archive makes torch stumble over
        raise ExportError(
            f"{path} is not an archive that torch.export can load: {_reason(error)}"
        ) from error
    if program.example_inputs is None:
        raise InputError(f"{path} has no example inputs; save it as torch.export made it")
    args, kwargs = program.example_inputs
    return Source(path.stem, program, tuple(args), dict(kwargs), Quantization().scheme)


def _from_callable(name: str) -> Source:
    made = call(name)
    label = name.rpartition(":")[2].rpartition(".")[2]
    if isinstance(made, Mapping):
        fields = dict(made)
    elif isinstance(made, torch.nn.Module):
        fields = {"model": made}
    elif isinstance(made, tuple) and 2 <= len(made) <= 3:
        fields = dict(zip(("model", "args", "kwargs"), made, strict=False))
    else:
        fields = {}
    model, args = fields.get("model"), fields.get("args", ())
    kwargs = fields.get("kwargs") or {}
    if isinstance(args, torch.Tensor):
        args = (args,)
    if not isinstance(model, torch.nn.Module) or not (args or kwargs):
        raise InputError(
            f"{name} must give (module, args), (module, args, kwargs) or a dictionary with the "
            "keys model, args and, as needed, kwargs, dynamic_shapes, calibration, scheme; it gave "
            f"{type(made).__name__}"
        )
    data = fields.get("calibration")
    return Source(
        name=label,
        model=model.eval(),
        args=tuple(args),
        kwargs=dict(kwargs),
        scheme=parse_scheme(fields.get("scheme", Quantization().scheme)),
        calibration=None if data is None else lambda _count: data() if callable(data) else data,
        dynamic_shapes=fields.get("dynamic_shapes"),
    )


def batches(source: Source, count: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Up to ``count`` arguments for the model: of its calibration data, or varied from the example,
    which is the first; the example alone where it is more than tensors."""
    example = source.args, source.kwargs
    tensors = all(isinstance(arg, torch.Tensor) for arg in source.args)
    if source.kwargs or not (source.calibration or tensors):
        return [example]
    make = source.calibration or variations(*source.args)
    found = [tuple(batch) for _, batch in zip(range(count), make(count), strict=False)]
    return [(batch, {}) for batch in found] or [example]


def call(name: str) -> Any:
    """Imports ``package.module:callable``, also from the working directory, and calls it."""
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # user code may raise anything
        raise InputError(f"cannot import {module_name!r} of {name!r}: {_reason(error)}") from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InputError(f"{module_name!r} has no {attribute!r}; give package.module:callable")
        target = getattr(target, part)
    if not callable(target):
        raise InputError(f"{name!r} is a {type(target).__name__}, not something that can be called")
    try:
        return target()
    except PenstockError:
        raise
    except Exception as error:
        raise InputError(f"{name!r} failed when it was called: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

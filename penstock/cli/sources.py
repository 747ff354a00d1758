"""What the user names on the command line -> a model with example inputs.

A source is the name of a zoo model, the path of a ``.pt2`` archive, or ``package.module:callable``
or ``file.py:callable``, with ``@1x3x224x224`` behind it where that gives a module without inputs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penstock import zoo
from penstock.cli.user_code import FORM, call, require_model_name
from penstock.compiler.capture.given import load_archive
from penstock.compiler.quantize.quantization import Quantization, Scheme, parse_scheme
from penstock.errors import InputError
from penstock.zoo.images import IMAGENET, Normalization
from penstock.zoo.model import variations
from penstock.zoo.weights import load as load_checkpoint


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
    """Resolves ``name``; ``weights`` as :func:`penstock.zoo.create` takes them, of a callable's
    module a checkpoint alone. Raises ``InputError`` when it names nothing, ``ExportError`` for a
    bad archive."""
    if name in zoo.names():
        return _from_zoo(name, weights, seed)
    if name.endswith(".pt2"):
        if weights is not None:
            raise InputError(f"{name} has its own weights; leave --weights out")
        return _from_archive(Path(name))
    if ":" in name:
        return _from_callable(name, weights)
    require_model_name(name)
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
    program = load_archive(path)
    return _from_program(path.stem, program, str(path))


def _from_program(label: str, program: torch.export.ExportedProgram, name: str) -> Source:
    if program.example_inputs is None:
        raise InputError(f"{name} has no example inputs; keep it as torch.export made it")
    args, kwargs = program.example_inputs
    return Source(label, program, tuple(args), dict(kwargs), Quantization().scheme)


#: ``package.module:callable@int64:1x128,1x3``.
_CALLABLE = re.compile(r"(?P<name>.+?:[^\W\d][\w.]*)(@(?P<inputs>.*))?")
_INPUT = re.compile(r"((?P<dtype>[a-z]+\d*):)?(?P<sizes>\d+(x\d+)*)")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    )
}  # fmt: skip


def _from_callable(given: str, weights: str | None) -> Source:
    match = _CALLABLE.fullmatch(given)
    if match is None:
        raise InputError(f"cannot read {given!r}; give {FORM}")
    name, described = match["name"], match["inputs"]
    made = call(name)
    label = name.rpartition(":")[2].rpartition(".")[2]
    if isinstance(made, torch.export.ExportedProgram):
        if described is not None:
            raise InputError(f"{name} gives an exported program, whose inputs are fixed")
        if weights is not None:
            raise InputError(f"{name} gives an exported program with weights; leave --weights out")
        return _from_program(label, made, name)
    if isinstance(made, Mapping):
        fields = dict(made)
    elif isinstance(made, torch.nn.Module):
        fields = {"model": made}
        if not _needed(made):
            fields["args"] = ()
    elif isinstance(made, tuple) and 2 <= len(made) <= 3:
        fields = dict(zip(("model", "args", "kwargs"), made, strict=False))
    else:
        fields = {}
    if described is not None:
        fields["args"] = _examples(described)
    model, args = fields.get("model"), fields.get("args", () if "kwargs" in fields else None)
    kwargs = fields.get("kwargs") or {}
    if isinstance(args, torch.Tensor):
        args = (args,)
    if isinstance(made, torch.nn.Module) and args is None:
        raise InputError(
            f"{name} gives a {type(made).__name__} without inputs, and its forward takes "
            f"{', '.join(_needed(made))}: give (module, args), or their shapes behind it, for "
            f"example {name}@1x3x224x224 or {name}@int64:1x128,1x128"
        )
    if not isinstance(model, torch.nn.Module) or not isinstance(args, (list, tuple)):
        raise InputError(
            f"{name} must give (module, args), (module, args, kwargs) or a dictionary with the "
            "keys model, args and, as needed, kwargs, dynamic_shapes, calibration, scheme; it gave "
            f"{_described(made)}"
        )
    if weights in ("default", "random"):
        raise InputError(
            f"--weights {weights} is for models of the zoo; give a checkpoint for {name}, or leave"
            " it out for the weights that it makes"
        )
    if weights is not None:
        load_checkpoint(model, weights, name)
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


def _described(made: Any) -> str:
    """What a callable gave, for a message."""
    if isinstance(made, Mapping):
        return f"a dictionary with {', '.join(map(str, made)) or 'nothing'}"
    if isinstance(made, tuple):
        return f"a tuple of ({', '.join(type(item).__name__ for item in made)})"
    return type(made).__name__


def _needed(model: torch.nn.Module) -> list[str]:
    """The parameters of ``forward`` that have no default."""
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds[1:]]


def _examples(text: str) -> tuple[torch.Tensor, ...]:
    """``1x3x224x224`` or ``int64:1x128,1x128`` as tensors: random numbers, ones of integers. A type
    stands for the inputs after it too."""
    dtype = torch.float32
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in text.split(","):
            match = _INPUT.fullmatch(part.strip())
            named = match and (_DTYPES.get(match["dtype"]) if match["dtype"] else dtype)
            if match is None or named is None:
                raise InputError(
                    f"cannot read the inputs {text!r}; write shapes, for example 1x3x224x224, or "
                    "int64:1x128,float32:1x16"
                )
            dtype, sizes = named, [int(size) for size in match["sizes"].split("x")]
            random = dtype.is_floating_point or dtype.is_complex
            found.append((torch.randn if random else torch.ones)(sizes, dtype=dtype))
    return tuple(found)


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

"""The user's own Python: ``package.module:callable`` and ``file.py:callable``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from penstock.errors import InputError, PenstockError, did_you_mean
from penstock.files import readable
from penstock.zoo.libraries import mended

#: What such a name looks like, for messages.
FORM = "package.module:callable or file.py:callable"


_Result = TypeVar("_Result")

_HINTS = (
    ((".py",), f"it is a file of Python; say what in it gives the model, as {FORM}"),
    ((".pte",), "it is compiled already; penstock run runs it"),
    ((".pt", ".pth", ".safetensors", ".ckpt"), "it holds weights, not what is computed; give "
     f"{FORM} that makes the model and loads them, or a .pt2 archive"),
    ((".onnx", ".tflite"), f"it is not a model of PyTorch; give {FORM} or a .pt2 archive"),
)  # fmt: skip


def require_model_name(source: str) -> None:
    """Raises InputError for a name that can mean no model, before torch is imported."""
    from penstock import zoo

    names = zoo.names()
    if source in names or ":" in source or source.endswith(".pt2"):
        return
    for endings, hint in _HINTS:
        if source.endswith(endings):
            raise InputError(f"cannot compile {source!r}: {hint}")
    from penstock.llm.export.named import is_checkpoint

    if is_checkpoint(source):
        raise InputError(
            f"{source} is a language model, which this command does not take; "
            f"penstock compile {source} makes a .pte file of it"
        )
    raise InputError(
        f"unknown model {source!r}{did_you_mean(source, names)}; the valid names are: "
        f"{', '.join(names)}; or give {FORM}, a .pt2 archive, or a language model: smollm2, a "
        "Hugging Face folder or a .gguf file"
    )


def call(name: str) -> Any:
    """What the callable gives that ``name`` says, when it is called without arguments.

    A module is looked for in the working directory too; a file may be anywhere, and imports what
    lies beside it.

    Raises:
        InputError: there is no such thing, it needs arguments, or it raises.
    """
    place, _, attribute = name.rpartition(":")
    target: Any = _module(place, name)
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InputError(
                f"{place!r} has no {attribute!r}{did_you_mean(part, dir(target))}; give {FORM}"
            )
        target = getattr(target, part)
    if not callable(target):
        raise InputError(f"{name!r} is a {type(target).__name__}, not something that can be called")
    missing = _missing_arguments(target)
    if missing:
        raise InputError(
            f"{name!r} needs arguments ({', '.join(missing)}): give a function that takes none and "
            "calls it with them"
        )
    try:
        return _mending(target)
    except PenstockError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise InputError(f"{name!r} failed when it was called: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """An exception of code that is not Penstock's in a few words, with the line that raised it."""
    text = " ".join(str(error).split())[:300]
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if frames and not frames[-1].filename.startswith(("<", os.path.dirname(__file__))):
        text += f" ({frames[-1].filename}:{frames[-1].lineno})"
    if error.__cause__ is not None:
        text += f", because of {reason(error.__cause__)}"
    return text


def _module(place: str, name: str) -> ModuleType:
    from_file = place.endswith(".py")
    path = readable(place, "Python file") if from_file else None
    # A console command's path lacks the working directory, which ``python -m`` has.
    beside = os.getcwd() if path is None else str(path.resolve().parent)
    if beside not in sys.path and not (path is None and "" in sys.path):
        sys.path.insert(0, beside)
    try:
        return _mending(lambda: _imported(place, path))
    except (Exception, SystemExit) as error:
        why = reason(error)
        if isinstance(error, ModuleNotFoundError) and error.name in (place, place.split(".")[0]):
            why = f"there is no module {error.name!r} here or among the installed packages"
            if Path(f"{place}.py").exists() or os.sep in place:
                why += f"; a file is given with its ending, {place}.py:…"
        raise InputError(f"cannot import {place!r} of {name!r}: {why}") from error


def _imported(place: str, path: Path | None) -> ModuleType:
    return importlib.import_module(place) if path is None else _from_file(path)


def _mending(run: Callable[[], _Result]) -> _Result:
    """What ``run`` gives; once more for each library that could be mended where it failed, also
    where another one (transformers) imports that library late and says so in its own words."""
    for _ in range(2):
        try:
            return run()
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not mended(cause):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
    return run()


def _from_file(path: Path) -> ModuleType:
    """The file as a module by its own name, or by another where that is taken."""
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    module_name = (
        path.stem if known is None else f"{path.stem}_{zlib.crc32(os.fsencode(path.resolve()))}"
    )
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickles look for it there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _missing_arguments(target: Any) -> list[str]:
    """The parameters without a default; none where the signature cannot be read."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.kind not in optional and p.default is p.empty]

"""Imports of the libraries that the zoo takes models from, also where a build does not fit torch.

The wheels of torchvision and torchaudio carry compiled parts that load only beside the torch build
they were made for; the models themselves are plain Python. Where the ordinary import works nothing
here does anything. Where it fails, the missing part is replaced by an empty one and the import is
done again.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from penstock.errors import InputError, install_hint

# Operators whose schemas torchvision's Python code needs when it is imported; no model of the zoo
# calls them. torchvision skips the registrations of the others by itself.
_TORCHVISION_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# Libraries whose import brings torchvision or torchaudio with it.
_BUILT_ON = {
    "torchsr": ("torchvision",),
    "timm": ("torchvision",),
    "transformers": ("torchvision", "torchaudio"),
}

_kept: list[object] = []


def require(name: str) -> Any:
    """Imports the module ``name`` (dotted names too) and gives it back.

    Raises ``InputError`` when the library is not installed, or is broken beyond what can be helped.
    """
    library = name.partition(".")[0]
    for base in _BUILT_ON.get(library, ()):
        if importlib.util.find_spec(base) is not None:
            _import_base(base)
    try:
        if library in ("torchvision", "torchaudio"):
            _import_base(library)
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this model comes from the library {library!r}, which cannot be imported "
            f"({_one_line(error)}); install it with: {install_hint('zoo')}"
        ) from error


def mended(error: BaseException) -> bool:
    """Whether an import failed because torchvision or torchaudio does not fit torch, and is worth
    another try: the missing part has been replaced."""
    for base, kind in (("torchvision", RuntimeError), ("torchaudio", OSError)):
        if isinstance(error, kind) and base in str(error):
            _import_base(base)
            return True
    return False


def _import_base(name: str) -> None:
    if name == "torchvision":
        _import_torchvision()
    else:
        _import_torchaudio()


def _import_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _forget("torchvision")
        _define_torchvision_operators()
        importlib.import_module("torchvision")


def _define_torchvision_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    # The definitions live as long as the library object does.
    _kept.append(library)
    for name, schema in _TORCHVISION_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)


def _import_torchaudio() -> None:
    try:
        importlib.import_module("torchaudio")
    except OSError:
        # An empty package object over the same folder: submodules that are plain Python import.
        _forget("torchaudio")
        spec = importlib.util.find_spec("torchaudio")
        if spec is None:
            raise
        package = ModuleType("torchaudio")
        package.__spec__ = spec
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["torchaudio"] = package


def _forget(library: str) -> None:
    """Drops what a failed import of ``library`` left behind."""
    for name in [n for n in sys.modules if n == library or n.startswith(library + ".")]:
        del sys.modules[name]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

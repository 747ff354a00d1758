"""The exceptions that Penstock raises on purpose, all below :class:`PenstockError`.

The message of each is one line that says what was wrong, with which value, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from penstock.text import printable


class PenstockError(Exception):
    """Root of every error that Penstock raises on purpose."""


class ExportError(PenstockError):
    """``torch.export`` cannot capture the model."""


class UnsupportedError(PenstockError):
    """The model or the program uses something that Penstock does not support."""


class QuantizationError(PenstockError):
    """The model cannot be quantized as asked, or the calibration data does not fit it."""


class InvalidProgramError(PenstockError):
    """A program file, or a delegate's payload in it, is damaged or not what it claims to be."""


class InputError(PenstockError):
    """What the caller passed is wrong: inputs, option values, names, paths."""


class BackendUnavailableError(PenstockError):
    """A backend that the program needs is not there, or fails its self-test."""


class OutOfMemoryError(PenstockError, MemoryError):
    """There is not enough memory for what was asked."""


class InternalError(PenstockError):
    """A fault of Penstock itself, to be reported. What was raised is its ``__cause__``.

    ``stage`` is what was being done; ``operator`` (an ATen overload), ``module`` (the path of the
    ``nn.Module`` that called it) and ``source`` (the line of the model) say at what, as far as
    that is known.
    """

    def __init__(
        self, message: str, *, stage: str = "", operator: str = "", module: str = "",
        source: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.stage = stage
        self.operator = operator
        self.module = module
        self.source = source


#: The name under which Penstock is installed; ``penstock`` on the package index is another
#: project's. As in ``pyproject.toml``; a test compares them.
DISTRIBUTION = "penstock-xnnpack"
#: Which extra brings a package.
_EXTRAS = {
    "torch": "compile",
    "torchao": "compile",
    "torchvision": "zoo",
    "timm": "zoo",
    "transformers": "zoo",
    "torchaudio": "zoo",
    "torchsr": "zoo",
    "sklearn": "zoo",
    "PIL": "zoo",
    "tokenizers": "llm",
    "jinja2": "llm",
    "gguf": "llm",
    "pyarrow": "batch",
    "ray": "ray",
    "dask": "dask",
    "distributed": "dask",
    "pyspark": "spark",
    "onnx": "bench",
    "onnxscript": "bench",
    "onnxruntime": "bench",
    "openvino": "bench",
    "executorch": "bench",
}


def install_hint(extra: str) -> str:
    """The command that installs Penstock with one of its extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def for_missing_package(error: ModuleNotFoundError) -> BackendUnavailableError | None:
    """The error to raise where a package that comes with one of Penstock's extras is missing;
    ``None`` where it is another one."""
    package = (error.name or "").split(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    return BackendUnavailableError(
        f"this needs {package}, which is not installed: {install_hint(extra)}"
    )


def shorten(value: Any, limit: int = 120) -> str:
    """The value as a piece of a one-line message: files may hold names and lists of any length,
    and characters that a terminal obeys."""
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def did_you_mean(word: str, words: Collection[str]) -> str:
    """A piece of a message: which of ``words`` may have been meant, or nothing."""
    known = {one: one for one in words} | {one.lower(): one for one in words}
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {known[close[0]]!r}?)" if close else ""

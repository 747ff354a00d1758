"""The exceptions that Penstock raises on purpose, all below :class:`PenstockError`.

The message of each is one line that says what was wrong, with which value, and what to do.
"""

from __future__ import annotations


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

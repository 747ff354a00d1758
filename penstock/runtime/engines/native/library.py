"""The shared library with our own kernels: where it is, loading it, what it has.

A build of Penstock puts it into ``lib`` beside this file, where there is a compiler for the
platform. Without it XNNPACK does all the work.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_size_t, c_uint32
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import DISTRIBUTION, BackendUnavailableError, InputError
from penstock.runtime.engines.native.isa import Isa, allowed
from penstock.runtime.engines.shared_objects import open_shared

#: Environment variable: another library than the one beside this file.
VARIABLE = "PENSTOCK_NATIVE_LIBRARY"
FOLDER = Path(__file__).parent / "lib"
#: ``PK_ABI_VERSION`` of ``native/core.h``.
ABI_VERSION = 19

#: A prototype: what a function returns, and its arguments.
Prototype = tuple[Any, tuple[Any, ...]]


class Caches(Structure):
    """``struct pk_caches``: bytes, 0 for unknown."""

    _fields_ = [("l1", c_size_t), ("l2", c_size_t), ("l3", c_size_t)]


_CORE: dict[str, Prototype] = {
    "pk_abi_version": (c_uint32, ()),
    "pk_detect_isa": (c_uint32, ()),
    "pk_detect_caches": (None, (POINTER(Caches),)),
}


@dataclass(frozen=True)
class Library:
    """The bound library. ``detected`` are the instruction sets that this machine has, ``isa`` those
    of them that may be used."""

    path: Path
    functions: ctypes.CDLL
    detected: Isa
    isa: Isa

    def has(self, sets: Isa) -> bool:
        """Whether one of ``sets`` may be used. (Operators of flags take microseconds, and this is
        asked of each node.)"""
        return int.__and__(self.isa, sets) != 0

    def caches(self) -> Caches:
        """The caches of one core."""
        return _caches(self.functions)


@functools.cache
def _caches(functions: ctypes.CDLL) -> Caches:
    """Asking the processor takes tens of microseconds on virtual machines."""
    found = Caches()
    functions.pk_detect_caches(byref(found))
    return found


def file_name() -> str:
    """The library's file name on this platform."""
    return "libpenstock_native.dylib" if sys.platform == "darwin" else "libpenstock_native.so"


def reason_against() -> str | None:
    """Why there are no kernels of our own here; None where there are."""
    try:
        shared_library()
    except BackendUnavailableError as error:
        return str(error)
    return None


@functools.cache
def shared_library() -> Library:
    """The library of this process, loaded at the first call.

    Raises:
        BackendUnavailableError: it was not built, or is not the one that belongs to this version.
        InputError: ``PENSTOCK_ISA`` names no instruction set of this machine, or
            ``PENSTOCK_NATIVE_LIBRARY`` no file.
    """
    asked = os.environ.get(VARIABLE)
    if asked and not Path(asked).is_file():
        raise InputError(f"{VARIABLE} is {asked!r}, which is no file; give the path of the library")
    return open_library(Path(asked) if asked else FOLDER / file_name())


def open_library(path: Path, highest: str | None = None) -> Library:
    """Load and bind the library at ``path``; ``highest`` in place of ``PENSTOCK_ISA``.

    Raises: as :func:`shared_library`.
    """
    if not path.is_file():
        raise BackendUnavailableError(
            f"our own kernels are not built ({path} is missing); reinstall {DISTRIBUTION} where"
            " there is a C compiler for the platform"
        )
    try:
        functions = open_shared(path)
        bind(functions, _CORE)
        version = functions.pk_abi_version()
        if version != ABI_VERSION:
            raise AttributeError(f"its version is {version}, not {ABI_VERSION}")
    except (OSError, AttributeError) as error:
        raise BackendUnavailableError(
            f"our own kernels at {path} cannot be used ({error}); reinstall {DISTRIBUTION}"
        ) from None
    detected = Isa(functions.pk_detect_isa())
    return Library(path, functions, detected, allowed(detected, highest))


def bind(functions: ctypes.CDLL, prototypes: Mapping[str, Prototype]) -> None:
    """Give functions their types. Raises AttributeError for a missing one."""
    for name, (result, arguments) in prototypes.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments

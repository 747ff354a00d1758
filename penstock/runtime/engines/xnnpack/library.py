"""XNNPACK's shared library: where it is, loading it, binding it.

The library is the one of the ``executorch`` wheel; a build of Penstock packs it into
``penstock/runtime/engines/xnnpack/lib``. It needs two sibling libraries, which are loaded first
and by their full paths, so that the loader's search path does not matter.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import DISTRIBUTION, BackendUnavailableError
from penstock.runtime.engines.shared_objects import open_shared
from penstock.runtime.engines.xnnpack import bindings
from penstock.runtime.engines.xnnpack.pools import Pools, pools

#: Environment variable: the library itself, or the folder that it lies in.
VARIABLE = "PENSTOCK_XNNPACK_LIBRARY"
#: The package that carries the library.
REQUIREMENT = "executorch==1.5.1"
#: The stems of the three libraries, in the order in which they need each other.
STEMS = ("executorch", "executorch_threadpool", "executorch_backend_xnnpack")
PACKED = Path(__file__).parent / "lib"


def file_name(stem: str) -> str:
    """The file name of a library on this platform."""
    if sys.platform == "win32":
        return f"{stem}.dll"
    return f"lib{stem}.dylib" if sys.platform == "darwin" else f"lib{stem}.so"


@dataclass(frozen=True)
class Library:
    """The bound libraries: ``xnn`` has the ``xnn_*`` functions."""

    path: Path
    xnn: ctypes.CDLL
    pools: Pools

    def status(self, code: int) -> str:
        """What an ``xnn_status`` means, in words."""
        return bindings.STATUS[code] if 0 <= code < len(bindings.STATUS) else f"status {code}"


def find() -> Path:
    """The XNNPACK library's path: ``PENSTOCK_XNNPACK_LIBRARY``, the packed one, ``executorch``'s.

    Raises:
        BackendUnavailableError: none of them is there, or the variable names nothing.
    """
    name = file_name(STEMS[-1])
    asked = os.environ.get(VARIABLE)
    if asked:
        path = Path(asked)
        path = path / name if path.is_dir() else path
        if not path.is_file():
            raise BackendUnavailableError(
                f"XNNPACK's library is not at {VARIABLE}={asked}; point it to {name}"
            )
        return path
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    raise BackendUnavailableError(
        f"XNNPACK's library ({name}) is missing: reinstall {DISTRIBUTION}, or install"
        f" {REQUIREMENT}, or point {VARIABLE} to it"
    )


def _folders() -> Iterator[Path]:
    yield PACKED
    try:
        spec = importlib.util.find_spec("executorch")  # of a top-level package: imports nothing
    except (ImportError, ValueError):
        spec = None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / "lib"


@functools.cache
def shared() -> Library:
    """The library of this process, loaded at the first call and not yet tested.

    Raises:
        BackendUnavailableError: see :func:`find` and :func:`open_library`.
    """
    return open_library(find())


def open_library(path: Path) -> Library:
    """Load and bind the library at ``path``, with its siblings.

    Raises:
        BackendUnavailableError: it cannot be loaded, or lacks a function that we need.
    """
    handles = []
    try:
        for stem in STEMS[:-1]:
            sibling = path.parent / file_name(stem)
            handles.append(open_shared(sibling) if sibling.is_file() else None)
        xnn = open_shared(path)
    except OSError as error:
        raise BackendUnavailableError(
            f"XNNPACK's library at {path} cannot be loaded ({error}); use that of {REQUIREMENT}"
        ) from None
    # A library that is linked statically has the thread pool in it.
    try:
        bindings.bind(xnn, bindings.XNNPACK)
        threads = pools(handles[1] or xnn)
    except AttributeError as error:
        raise BackendUnavailableError(
            f"XNNPACK's library at {path} is of another version ({error});"
            f" use that of {REQUIREMENT}"
        ) from None
    status = xnn.xnn_initialize(None)
    if status:
        raise BackendUnavailableError(
            f"XNNPACK cannot run on this machine (initializing {path} failed with status {status})"
        )
    return Library(path, xnn, threads)

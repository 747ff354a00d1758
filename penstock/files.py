"""Writing files: all of one, or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from penstock.errors import InputError


def write_file(path: str | Path, write: Callable[[IO[bytes]], Any], *, what: str = "file") -> None:
    """What ``write`` writes appears at ``path`` whole or not at all: it goes to a temporary file
    beside it, which is renamed. A device (``/dev/stdout``) is written to as it is.

    Raises InputError if it cannot be written; ``what`` is the name there of what it is.
    """
    path = Path(path)
    temporary = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                write(file)
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot write the {what} {path}: {reason}; choose another place"
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

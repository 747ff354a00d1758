"""Writing files: all of one, or nothing. Reading: files alone, no devices."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from penstock.errors import InputError, shorten


def readable(path: str | os.PathLike[str], what: str = "file") -> Path:
    """The path of a regular file. A pipe would wait for whoever writes to it, and a device has no
    end.

    Raises InputError if there is none; ``what`` is the name there of what it is.
    """
    name = shorten(os.fspath(path), 300) or "''"
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no {what} {name}") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the {what} {name}: {reason}") from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise InputError(f"cannot read the {what} {name}: it is {kind}; give a file")
    return Path(path)


def write_file(path: str | Path, write: Callable[[IO[bytes]], Any], *, what: str = "file") -> None:
    """What ``write`` writes appears at ``path`` whole or not at all: it goes to a temporary file
    beside it, which is renamed. A file that was there gives it its permissions; a symbolic link
    stays, and its target is written. A device (``/dev/stdout``) is written to as it is.

    Raises InputError if it cannot be written; ``what`` is the name there of what it is.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in os.fspath(path):
        given = shorten(repr(path)) if isinstance(path, str) else f"a {type(path).__name__}"
        raise InputError(f"the {what} cannot be written to {given}, which is no path; give one")
    path = Path(path)
    temporary = None
    try:
        known = path.exists()
        if known and not path.is_file():
            with path.open("wb") as file:
                write(file)
            return
        target = Path(os.path.realpath(path))
        mode = stat.S_IMODE(target.stat().st_mode) if known else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, mode)
        os.replace(temporary, target)
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

"""Where programs and data files come from: paths, which are mapped into memory, or contents."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from penstock.errors import InputError, InvalidProgramError
from penstock.files import readable
from penstock.formats.program import Buffer
from penstock.runtime.mapped import MappedFile

#: A file, by its path or its content.
Source: TypeAlias = "str | os.PathLike[str] | Buffer"
_T = TypeVar("_T")
BUFFERS = (bytes, bytearray, memoryview)


def read_source(
    source: Source,
    what: str,
    read: Callable[[Buffer], _T],
    *,
    copy: bool = False,
    spare: bool = False,
) -> tuple[_T, object]:
    """What ``read`` makes of the file, and the ``mmap`` that it lies in, if it does; the other
    arguments as for :func:`penstock.load`. ``what`` is the name in errors of what it should be.

    Raises InputError if it cannot be read, and what ``read`` raises.
    """
    mapping: object = None
    if isinstance(source, BUFFERS):
        contiguous = not isinstance(source, memoryview) or source.c_contiguous
        content, name = source if contiguous else bytes(source), f"the {what}"
    elif isinstance(source, (str, os.PathLike)):
        content, name = map_file(source, spare=spare), os.fspath(source)
        if copy:
            content = memoryview(bytes(content))
        else:
            mapping = content.obj
    else:
        raise InputError(f"a {what} is a path or bytes, not {type(source).__name__}")
    if len(content) == 0:
        raise InvalidProgramError(f"{name} is empty")
    try:
        return read(content), mapping
    except InvalidProgramError as error:
        raise InvalidProgramError(f"{name}: {error}") from error


def absolute(source: Source) -> str | Buffer:
    """A path that is the same in another folder; contents as they are."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    try:
        return os.path.abspath(source)
    except FileNotFoundError:
        raise InputError(
            f"the current folder was deleted; give the absolute path of {os.fspath(source)}"
        ) from None


def map_file(path: str | os.PathLike[str], *, spare: bool = False) -> memoryview:
    """The content of a file, mapped read-only; ``spare`` as for :func:`penstock.load`.

    Raises InputError if it cannot be read, InvalidProgramError if it is empty.
    """
    readable(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InvalidProgramError(f"{os.fspath(path)} is empty")
            mapping = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
            if spare and hasattr(os, "preadv"):
                mapping.keep_open(file.fileno())
            return memoryview(mapping)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {os.fspath(path)!r}: {reason}") from None

"""What is done of a long run: a folder of parts beside the file that is to be.

Each part is a Parquet file with the answers to consecutive rows, named by their numbers, and
appears whole or not at all. A run that is killed leaves its parts, and the next one goes on after
the last of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.errors import InputError, InvalidProgramError, shorten
from penstock.files import write_file

try:
    import fcntl
except ImportError:  # Windows: two runs into one file are not told apart there
    fcntl = None  # type: ignore[assignment]

#: A row group of the finished file has at least so many bytes, but for the last one.
GROUP_BYTES = 32 << 20
_NAME = re.compile(r"rows-(\d{12})-(\d{12})\.parquet")


class Parts:
    """The parts of the run into ``target``; a context manager, which no other run may enter
    meanwhile.

    ``about`` tells one run from another: files with their sizes and times, and options.

    Raises InputError where ``target`` is there already, another run is at work on it, or the
    folder is that of a run of something else.
    """

    def __init__(self, target: Path, about: dict[str, Any], schema: Any) -> None:
        if not target.name:
            raise InputError(f"the answers cannot go to {str(target)!r}; give the name of a file")
        self._target, self._about, self._schema = target, about, schema
        self._folder = target.with_name(f"{target.name}.parts")
        self._lock: IO[bytes] | None = None
        #: how many rows are done
        self.done = 0

    def __enter__(self) -> Parts:
        if self._target.exists():
            raise InputError(
                f"{self._target} is there already; remove it, or choose another --output"
            )
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock = (self._folder / "lock").open("wb")
        except OSError as error:
            raise InputError(
                f"cannot write to {self._folder}: {error.strerror}; choose another place"
            ) from None
        try:
            self._enter()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _enter(self) -> None:
        assert self._lock is not None
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"another run writes {self._target} at the moment; wait for it, or choose"
                    " another --output"
                ) from None
        record = self._folder / "run.json"
        about = json.dumps(self._about, indent=2, sort_keys=True)
        if record.exists():
            if record.read_text(encoding="utf-8") != about:
                raise InputError(
                    f"{self._folder} has the parts of an unfinished run of other files or options;"
                    " remove it, or choose another --output"
                )
        else:
            write_file(record, lambda file: file.write(about.encode()))
        for left in self._folder.glob(".*"):  # of a write that was killed
            left.unlink()
        self.done = sum(count for _, count in self._sound())

    def _sound(self) -> Iterator[tuple[Path, int]]:
        """The parts one after the other, as far as none is missing, and how many rows they have."""
        row = 0
        for path in sorted(self._folder.glob("rows-*.parquet")):
            found = _NAME.fullmatch(path.name)
            if found is None or int(found[1]) != row:
                break
            row = int(found[2])
            yield path, row - int(found[1])

    def add(self, batches: list[Any]) -> None:
        """The answers to the rows that follow. Raises InputError where they cannot be written."""
        table = pa.Table.from_batches(batches, self._schema)
        last = self.done + len(table)
        path = self._folder / f"rows-{self.done:012}-{last:012}.parquet"
        write_file(path, lambda file: pq.write_table(table, file), what="answers to")
        self.done = last

    def finish(self) -> None:
        """Makes the file out of the parts, at once, and removes them. Raises InputError where it
        cannot be written; the parts are there for another try then."""
        write_file(self._target, self._join, what="answers to")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self, file: IO[bytes]) -> None:
        with pq.ParquetWriter(file, self._schema) as writer:
            waiting: list[Any] = []
            for path, _ in self._sound():
                waiting.append(_read(path))
                if sum(table.nbytes for table in waiting) >= GROUP_BYTES:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))


def _read(path: Path) -> Any:
    try:
        return pq.read_table(path, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        reason = shorten(str(error).partition("\n")[0], 300)
        raise InvalidProgramError(f"the part {path} is damaged: {reason}; remove it") from None


def fingerprint(path: str | os.PathLike[str]) -> list[Any]:
    """What tells a file from another, or from itself once it has changed."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return [os.path.abspath(path), found.st_size, found.st_mtime_ns]
    return [os.path.abspath(path)]

"""What the shell completes: models, files by what their names end in, and choices."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.llm.export.named import PACKAGES
from penstock.zoo.registry import ENTRIES

#: Names with other characters are left to the shell, which quotes them.
_PLAIN = re.compile(r"[\w./+,@%-]+")

Completer = Callable[[str], list[str]]


def models(incomplete: str) -> list[str]:
    """Models of the zoo and language models by name, and files that can be compiled."""
    names = [name for name in sorted({*ENTRIES, *PACKAGES}) if name.startswith(incomplete)]
    return [*names, *files(".pt2", ".gguf")(incomplete)]


def files(*endings: str) -> Completer:
    """Completes the paths of files with one of ``endings`` and of folders on the way to them."""

    def complete(incomplete: str) -> list[str]:
        found = list(_below(incomplete, endings))
        # The shell would put a blank after a folder's name: go on into it.
        while len(found) == 1 and found[0].endswith("/"):
            found = list(_below(found[0], endings))
        return found if all(map(_PLAIN.fullmatch, found)) else []

    return complete


def _below(start: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Entries of ``start``'s folder that begin as it does; folders end in a slash."""
    head, tail = os.path.split(start)
    try:
        entries = sorted(os.scandir(head or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(tail) or (entry.name.startswith(".") and not tail):
            continue
        path = os.path.join(head, entry.name)
        if entry.is_dir():
            yield f"{path}/"
        elif Path(entry.name).suffix.lower() in endings:
            yield path


def among(*choices: str) -> Completer:
    """Completes one of ``choices``."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def several(*choices: str) -> Completer:
    """Completes the last of ``choices`` that are separated by commas."""

    def complete(incomplete: str) -> list[str]:
        *given, last = incomplete.split(",")
        left = [name for name in choices if name not in given and name.startswith(last)]
        return [",".join((*given, name)) for name in left]

    return complete


PROGRAMS = files(".pte")
TABLES = files(".parquet")
ENGINE_NAMES = among("auto", "xnnpack", "native")

"""What a program asks of the runtime that reads it, and the releases of ExecuTorch that have it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from penstock.errors import InvalidProgramError
from penstock.formats.needs import Needs, read_needs
from penstock.formats.program import XNNPACK_BACKEND
from penstock.formats.program_header import IDENTIFIER
from penstock.formats.releases import Releases, Span, What, releases
from penstock.runtime.sources import map_file


@dataclass(frozen=True)
class Requirement:
    """One thing that a program needs. ``what`` is ``format``, ``backend``, ``feature``, ``node``,
    ``datatype`` or ``kernel``; ``count`` how many nodes or values are of that kind, or how often
    the kernel is called; ``since`` the first release that has it, None where no release is known
    to, ``until`` the last one where later ones lack it."""

    what: str
    name: str
    count: int
    since: str | None
    until: str | None = None


@dataclass(frozen=True)
class Requires:
    """All that a program needs, what the newest release brought first.

    ``first`` and ``last`` bound the releases that have everything which any release has; ``last``
    is None where the newest known one is among them, and both are where none has all of it.
    ``unknown`` are the things that ExecuTorch's own releases lack: kernels and backends that an
    app has to bring. ``notes`` say what could not be read.
    """

    path: str
    requirements: tuple[Requirement, ...]
    first: str | None
    last: str | None
    newest_known: str
    notes: tuple[str, ...] = ()

    @property
    def unknown(self) -> tuple[Requirement, ...]:
        return tuple(one for one in self.requirements if one.since is None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "unknown": [one.name for one in self.unknown]}


def requires(path: str | os.PathLike[str]) -> Requires:
    """What the program in the file at ``path`` needs. Data files are not asked for.

    Raises:
        InputError: there is no such file, or it cannot be read.
        InvalidProgramError, UnsupportedError: it is no program, or a damaged one.
    """
    data = map_file(path)
    try:
        needs = read_needs(data)
    except InvalidProgramError as error:
        raise InvalidProgramError(f"{os.fspath(path)}: {error}") from error
    return judge(needs, releases(), os.fspath(path))


def judge(needs: Needs, table: Releases, path: str = "") -> Requires:
    """``needs`` beside what the releases of ``table`` have."""
    found = sorted(_requirements(needs, table), key=lambda one: _order(one, table))
    spans = [Span(one.since, one.until) for one in found if one.since is not None]
    common = table.common(spans)
    newest = table.all[-1]
    return Requires(
        path,
        tuple(found),
        common[0] if common else None,
        common[-1] if common and common[-1] != newest else None,
        newest,
        tuple(" ".join(note.split()) for note in needs.unreadable),
    )


def _order(one: Requirement, table: Releases) -> tuple[int, int, str]:
    age = -1 if one.since is None else len(table.all) - table.all.index(one.since)
    return age, _KINDS.index(one.what), one.name


_KINDS = ("format", "backend", "feature", "node", "datatype", "kernel")


def _requirements(needs: Needs, table: Releases) -> Iterator[Requirement]:
    def made(what: What, name: str, shown: str, count: int) -> Requirement:
        span = table.having(what, name)
        if span is None:
            return Requirement(what, shown, count, None)
        return Requirement(what, shown, count, span.first, span.last)

    oldest = table.all[0]
    yield Requirement("format", f"{IDENTIFIER.decode()}, version {needs.version}", 1, oldest)
    for backend, count in needs.backends.items():
        known = backend == XNNPACK_BACKEND
        yield Requirement("backend", backend, count, oldest if known else None)
    for feature in needs.features:
        yield made("feature", feature.name, feature.value, 1)
    for kind, count in needs.nodes.items():
        yield made("node", kind.name, kind.name.lower(), count)
    for dtype, count in needs.datatypes.items():
        yield made("datatype", dtype.name, dtype.name.lower(), count)
    for kernel, count in needs.kernels.items():
        yield made("kernel", kernel, kernel, count)

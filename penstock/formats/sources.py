"""The source map of a program: where in the user's model its instructions and nodes come from.

It is named data under :data:`KEY`, which no delegate asks for, so that other runtimes leave it
alone: JSON, compressed by zlib. It is an object with the ``origins`` (each an array of the path of
the ``nn.Module``, the line of source as ``file:line`` and the ATen operator) and the ``methods``. A
method has the position of an origin, or -1, for each of its ``instructions``, and for each of its
``delegates`` an array with the positions for the debug handles 1, 2, 3 ... of the payload's nodes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from penstock.errors import InvalidProgramError
from penstock.formats.blobs import as_bytes
from penstock.formats.program import Buffer

KEY = "penstock.sources"
#: No source map is larger; a damaged one may claim to be.
MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Origin:
    """Where something comes from: the path of the ``nn.Module`` (``features.0.1``), the line of the
    user's source (``model.py:12``), the ATen operator. Empty where that is not known."""

    module: str = ""
    source: str = ""
    operator: str = ""


UNKNOWN = Origin()


@dataclass(frozen=True)
class MethodSources:
    """The origins of a method's instructions, and of its delegates' debug handles (1 is the
    first)."""

    instructions: tuple[Origin, ...] = ()
    delegates: tuple[tuple[Origin, ...], ...] = ()

    def of_instruction(self, position: int) -> Origin:
        return _at(self.instructions, position, UNKNOWN)

    def of_node(self, delegate: int, handle: int) -> Origin:
        """The origin of a node of a delegate by the node's debug handle."""
        return _at(_at(self.delegates, delegate, ()), handle - 1, UNKNOWN)


_T = TypeVar("_T")


def _at(items: Sequence[_T], position: int, default: _T) -> _T:
    return items[position] if 0 <= position < len(items) else default


def encode_sources(methods: Mapping[str, MethodSources]) -> bytes:
    """The source map as the bytes of its named data."""
    origins: dict[Origin, int] = {UNKNOWN: -1}

    def number(origin: Origin) -> int:
        return origins.setdefault(origin, len(origins) - 1)

    found = {
        name: {
            "instructions": [number(origin) for origin in sources.instructions],
            "delegates": [[number(origin) for origin in one] for one in sources.delegates],
        }
        for name, sources in methods.items()
    }
    listed = [[o.module, o.source, o.operator] for o in origins if o != UNKNOWN]
    text = json.dumps({"origins": listed, "methods": found}, separators=(",", ":"))
    return zlib.compress(text.encode(), 9)


def decode_sources(data: Buffer) -> dict[str, MethodSources]:
    """The source map of each method.

    Raises InvalidProgramError where the data is no source map.
    """
    try:
        inflater = zlib.decompressobj()
        read = json.loads(inflater.decompress(as_bytes(data), MOST_BYTES))
        origins = [Origin(*map(str, entry)) for entry in read["origins"]]
        return {
            str(name): MethodSources(
                tuple(_at(origins, int(i), UNKNOWN) for i in method["instructions"]),
                tuple(
                    tuple(_at(origins, int(i), UNKNOWN) for i in one) for one in method["delegates"]
                ),
            )
            for name, method in read["methods"].items()
        }
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidProgramError(f"the source map of the program is damaged: {error}") from None

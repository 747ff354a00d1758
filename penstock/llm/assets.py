"""What a language model's file holds besides its program: tokenizer, chat template, defaults.

It is named data under :data:`KEY`, which no delegate asks for, so that other runtimes leave it
alone: JSON, compressed by zlib. So one file is the whole model, and no tokenizer can be lost or
taken for another's.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from penstock.errors import InputError, InvalidProgramError, shorten
from penstock.formats.blobs import as_bytes
from penstock.formats.program import Buffer, Program

KEY = "penstock.llm"
#: No tokenizer is larger; a damaged file may claim to have one.
MOST_BYTES = 1 << 27


@dataclass(frozen=True)
class Assets:
    """``tokenizer`` is the JSON of the ``tokenizers`` library, ``chat_template`` Jinja,
    ``special_tokens`` the texts that templates name, ``generation`` the checkpoint's own options;
    ``chunk`` is how many tokens the program takes at once."""

    name: str
    architecture: str
    tokenizer: str
    chunk: int
    chat_template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    generation: Mapping[str, float] = field(default_factory=dict)

    def encode(self) -> bytes:
        raw = asdict(self) | {"tokenizer": quick_to_read(self.tokenizer)}
        return zlib.compress(json.dumps(raw, ensure_ascii=False).encode(), 6)


def quick_to_read(tokenizer: str) -> str:
    """The same tokenizer, in the form of its JSON that is read a fifth faster: without spaces, and
    a merge as one text with a space in it, where neither part has one."""
    try:
        raw = json.loads(tokenizer)
        model = raw["model"]
        merges = model["merges"]
        if all(isinstance(m, list) and not any(" " in part for part in m) for m in merges):
            raw["model"] = model | {"merges": [" ".join(pair) for pair in merges]}
        quick = json.dumps(raw, ensure_ascii=False, separators=(",", ":"))
        quick.encode()
        return quick
    except (ValueError, LookupError, TypeError, RecursionError):
        return tokenizer  # of another kind


def find(program: Program, path: str) -> Assets:
    """The assets of a program.

    Raises :class:`InputError` for one without, :class:`InvalidProgramError` for damaged ones.
    """
    data = program.named_data.get(KEY)
    if data is None:
        raise InputError(
            f"{path} is no language model that Penstock compiled: it has no tokenizer in it; "
            "penstock compile makes one from a checkpoint, or give its tokenizer (tokenizer=, "
            "--tokenizer)"
        )
    return decode(data)


def decode(data: Buffer) -> Assets:
    """Raises :class:`InvalidProgramError` for data that no :meth:`Assets.encode` made."""
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(as_bytes(data), MOST_BYTES)
        if inflater.unconsumed_tail or not inflater.eof:
            raise ValueError("it is not whole")
        raw = json.loads(text)
        known = {one.name for one in fields(Assets)}
        found = Assets(**{key: value for key, value in raw.items() if key in known})
        _check(found)
        return found
    except (zlib.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidProgramError(
            f"the language model's tokenizer and settings in the file are damaged: {shorten(error)}"
        ) from error


def _check(assets: Assets) -> None:
    texts = isinstance(assets.tokenizer, str) and isinstance(
        assets.chat_template, (str, type(None))
    )
    whole = isinstance(assets.chunk, int) and assets.chunk > 0
    maps = isinstance(assets.special_tokens, Mapping) and isinstance(assets.generation, Mapping)
    if not (texts and whole and maps):
        raise ValueError("an entry has another type than it should")
    texts = isinstance(assets.name, str) and isinstance(assets.architecture, str)
    if not texts or not all(isinstance(text, str) for text in assets.special_tokens.values()):
        raise ValueError("a name or a special token is no text")
    for value in assets.generation.values():
        if not isinstance(value, (int, float)) or not abs(value) < 1e9:
            raise ValueError("a default of the generation is no number")

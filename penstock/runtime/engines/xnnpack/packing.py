"""The memory of packed weights.

XNNPACK copies the weights of products into a layout of its own. Left alone it allocates a block
for each; the peak is then all weights twice, as they are in the file and packed. As a "weights
cache" of XNNPACK's (``xnn_weights_cache_provider`` in ``xnnpack.h``) we give it the memory, and
learn when a weight is packed, so that its pages of the file can go at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ctypes import c_size_t
from typing import Any

import numpy as np

from penstock.runtime.blocks import address
from penstock.runtime.engines.weight_blocks import WeightBlocks
from penstock.runtime.engines.xnnpack.bindings import WeightsCache
from penstock.runtime.mapped import drop

#: XNNPACK's answer for "not there".
_ABSENT = c_size_t(-1).value
#: Of a weight for which more than one block was packed: it is packed again.
_AMBIGUOUS = 0
_LIBC = ctypes.CDLL(None)
_KINDS: dict[str, Any] = {field[0]: field[1] for field in WeightsCache._fields_}
#: The functions that know nothing of the cache they are asked about.
_REST = (
    ctypes.cast(_LIBC.strlen, _KINDS["is_finalized"]),
    _KINDS["offset_to_addr"](lambda context, offset: offset),
    _KINDS["delete_cache"](lambda context: 0),
    _KINDS["alias_data"](lambda context, alias, original: 0),
)


class PackedWeights:
    """The packed weights of one runtime. They must outlive it.

    An "offset" into the cache is an address. Nothing is found by what XNNPACK looks up: that does
    not name the parameters of quantization, which are packed too. It is found by its turn: a
    runtime that is created from the same graph once more (``shared``: the weights of the first
    one) asks for the same weights in the same order, and gets those that are packed already.

    ``constants`` are the arrays that XNNPACK was given, ``blocks`` is where packed weights go.
    """

    def __init__(
        self,
        constants: Iterable[np.ndarray],
        blocks: WeightBlocks,
        shared: PackedWeights | None = None,
    ) -> None:
        sources = {address(array): array for array in constants}
        #: for each weight that XNNPACK looked up, in order: the seed of its packing, its address
        self._order: list[tuple[int, int]] = []
        order, known = self._order, shared._order if shared is not None else []
        chunks: list[np.ndarray] = []
        # Setting a runtime up asks for each weight whether all are there: C's own function answers,
        # by the length of this text. One in Python costs more, and Ctrl-C could end it.
        finished = ctypes.create_string_buffer(2)

        def reserve(context: int | None, size: int) -> int | None:
            try:
                start, chunk = blocks.reserve(size)
            except (MemoryError, OSError):
                return None
            if not chunks or chunks[-1] is not chunk:
                chunks.append(chunk)
            return start

        def look_up(context: int | None, key: Any) -> int:
            turn, seed = len(order), key.contents.seed
            found = known[turn][1] if turn < len(known) and known[turn][0] == seed else _ABSENT
            if found == _AMBIGUOUS:
                found = _ABSENT
            order.append((seed, found))
            return found

        def insert(context: int | None, key: Any, start: int, size: int) -> int:
            if order:
                seed, before = order[-1]
                order[-1] = (seed, start if before == _ABSENT else _AMBIGUOUS)
            source = sources.get(key.contents.kernel)
            if source is not None:
                drop(source)
            return start

        self._chunks = chunks
        self._shared = shared  # whose memory this uses
        self._finished = finished
        self._provider = WeightsCache(
            ctypes.addressof(finished),
            _KINDS["look_up"](look_up),
            _KINDS["reserve_space"](reserve),
            _KINDS["look_up_or_insert"](insert),
            *_REST,
        )

    @property
    def provider(self) -> int:
        """The address of the ``xnn_weights_cache_provider``."""
        return ctypes.addressof(self._provider)

    def finish(self) -> None:
        """Nothing more will be packed."""
        self._finished[0] = b"1"

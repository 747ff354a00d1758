"""How finely the row of each token is rounded in an embedding and a head of 4-bit models.

A head is read as a whole for each token of an answer, so its bytes are time. Rows of rare tokens
get steps of 6 bits. They are int8 in the file, as all runtimes take them; our kernels pack them by
what they hold (:mod:`penstock.runtime.engines.native.narrow`).
"""

from __future__ import annotations

import json

import torch

from penstock.llm.export.checkpoint import Checkpoint

#: The largest integers of rows in 8 bits and in 6.
EIGHT, SIX = 127, 31
#: Rows are told apart in blocks of so many, as kernels do it.
_BLOCK = 1024
#: Below this a head is not what takes the time.
_LEAST = 16384
#: Tokenizers number tokens as they found them, frequent ones first: a sixth keeps 8 bits. (SmolLM2
#: on prose: a divergence of 0.188; 0.207 with 6 bits for all, 0.180 with 8.)
_FREQUENT = 6


def largest_integers(checkpoint: Checkpoint) -> torch.Tensor:
    """For each token of the vocabulary the largest integer that its row may have, int64 [tokens].

    Frequent tokens, which are the first ones, and control tokens at the end have 8 bits.
    """
    count = checkpoint.config.vocabulary
    found = torch.full((count,), EIGHT)
    if count < _LEAST:
        return found
    first = -(-count // (_FREQUENT * _BLOCK)) * _BLOCK
    last = count
    for token in json.loads(checkpoint.tokenizer).get("added_tokens", []):
        if token["id"] >= count - _BLOCK:
            last = min(last, token["id"] // _BLOCK * _BLOCK)
    found[first:last] = SIX
    return found

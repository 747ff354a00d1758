"""Numbers that do not depend on how many processors the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Has torch compute on one thread meanwhile.

    Where several threads share a sum, its last bits go by how many there are, and so would the
    bytes of a file for which a model was run: the ranges of its values, say.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The engines behind the names that :func:`penstock.load` takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from penstock.errors import BackendUnavailableError
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.weight_blocks import WeightBlocks
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


def engines_named(name: str, *, profile: bool = False) -> Sequence[Engine]:
    """The engines of ``auto``, ``xnnpack`` or ``native``, the preferred one first.

    Raises:
        BackendUnavailableError: XNNPACK's library is missing; or our own kernels, for ``native``.
        InputError: ``PENSTOCK_ISA`` names no instruction set of this machine.
    """
    blocks = WeightBlocks()
    xnnpack = XnnpackEngine(profile=profile, blocks=blocks)
    if name == "xnnpack":
        return (xnnpack,)
    from penstock.runtime.engines.native.engine import NativeEngine
    from penstock.runtime.engines.native.library import reason_against

    try:
        everything = name == "native"
        return NativeEngine(everything=everything, profile=profile, blocks=blocks), xnnpack
    except BackendUnavailableError as error:
        if name == "native":
            raise
        if reason_against() is None:  # they are there, and wrong
            warnings.warn(f"{error}; XNNPACK does their work", RuntimeWarning, stacklevel=2)
        return (xnnpack,)

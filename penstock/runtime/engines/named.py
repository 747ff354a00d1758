"""The engines behind the names that :func:`penstock.load` takes."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors import BackendUnavailableError
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


def engines_named(name: str, *, profile: bool = False) -> Sequence[Engine]:
    """The engines of ``auto``, ``xnnpack`` or ``native``, the preferred one first.

    Raises:
        BackendUnavailableError: XNNPACK's library is missing; or our own kernels, for ``native``.
        InputError: ``PENSTOCK_ISA`` names no instruction set of this machine.
    """
    xnnpack = XnnpackEngine(profile=profile)
    if name == "xnnpack":
        return (xnnpack,)
    from penstock.runtime.engines.native.engine import NativeEngine

    try:
        return NativeEngine(everything=name == "native", profile=profile), xnnpack
    except BackendUnavailableError:
        if name == "native":
            raise
        return (xnnpack,)

"""Do our own kernels compute rightly on this processor? One product of each of their families, with
its answer, when the library is loaded."""

from __future__ import annotations

from typing import Protocol

from penstock.errors import BackendUnavailableError, PenstockError
from penstock.graph.graph import Node, XnnGraph
from penstock.runtime.engines.native.isa import VARIABLE
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.processor import processor
from penstock.runtime.engines.protocol import Executable
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.kernel_families import (
    empty_outputs,
    families,
    those_of,
    wrong_families,
)


class _Engine(Protocol):
    def reason_against(self, graph: XnnGraph, node: Node) -> str | None: ...
    def compile(self, graph: XnnGraph, *, threads: Threads) -> Executable: ...


def self_test(library: Library, engine: _Engine) -> None:
    """Run a product of each family that ``engine``, which takes every node that the kernels of
    ``library`` can run, has.

    Raises:
        BackendUnavailableError: an answer is not the known one.
    """
    every = families(convert=False)
    found = those_of(every, lambda node: engine.reason_against(every.graph, node) is None)
    outputs = empty_outputs(found)
    try:
        engine.compile(found.graph, threads=Threads(1)).run(found.inputs, outputs)
        wrong = wrong_families(found, outputs)
    except PenstockError as error:
        wrong = [str(error)]
    if wrong:
        sets = ", ".join(library.isa.names)
        raise BackendUnavailableError(
            f"our own kernels at {library.path} compute wrongly on this processor, {processor()},"
            f" with {sets}: {', '.join(wrong)}; choose a lower instruction set ({VARIABLE}=scalar),"
            ' or engine="xnnpack"'
        )

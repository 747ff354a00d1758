"""The engine that runs graphs on XNNPACK."""

from __future__ import annotations

import functools
import os
from ctypes import byref, c_void_p

from penstock.errors import UnsupportedError
from penstock.graph.graph import Node, XnnGraph
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.weight_blocks import WeightBlocks
from penstock.runtime.engines.xnnpack.bindings import FLAG_BASIC_PROFILING
from penstock.runtime.engines.xnnpack.check import check_graph
from penstock.runtime.engines.xnnpack.define import define_graph
from penstock.runtime.engines.xnnpack.executable import XnnpackExecutable, delete_with
from penstock.runtime.engines.xnnpack.input_shapes import ShapeChecker
from penstock.runtime.engines.xnnpack.interrupts import interrupts_held
from penstock.runtime.engines.xnnpack.library import Library, shared
from penstock.runtime.engines.xnnpack.packing import PackedWeights
from penstock.runtime.engines.xnnpack.selftest import self_test
from penstock.runtime.engines.xnnpack.turn import Turn
from penstock.runtime.engines.xnnpack.values import unpacked_constants


@functools.cache
def shared_library() -> Library:
    """The library of this process, loaded and self-tested at the first call.

    Raises:
        BackendUnavailableError: it is missing, or not the version that we know.
    """
    library = shared()
    check_library(library)
    return library


def check_library(library: Library) -> None:
    """Run the self-test on ``library``. Raises BackendUnavailableError where it fails."""
    engine = XnnpackEngine(library=library)
    self_test(library, lambda graph: engine.compile(graph, threads=Threads(1)))


class XnnpackEngine:
    """Compiles graphs for XNNPACK. Executables of one engine share one workspace.

    Args:
        profile: measure the time of each node (see :meth:`XnnpackExecutable.profile`).
        library: another library than the process's own, for the self-test.
        blocks: the memory of packed weights, which other engines may share.
    """

    def __init__(
        self,
        *,
        profile: bool = False,
        library: Library | None = None,
        blocks: WeightBlocks | None = None,
    ) -> None:
        self.library = library or shared_library()
        self.profiles = profile
        self._blocks = blocks or WeightBlocks()
        self.turn = Turn(self.library.xnn)
        workspace = c_void_p()
        if self.library.xnn.xnn_create_workspace(byref(workspace)):
            raise MemoryError("XNNPACK cannot allocate a workspace")
        self._workspace = workspace.value
        delete_with(self, self.library.xnn.xnn_release_workspace, self._workspace)

    def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
        """XNNPACK runs whatever a payload can hold."""
        return None

    def sibling(self) -> XnnpackEngine:
        """See :meth:`penstock.runtime.engines.protocol.Sibling.sibling`."""
        return XnnpackEngine(profile=self.profiles, library=self.library)

    def compile(self, graph: XnnGraph, *, threads: Threads) -> XnnpackExecutable:
        """See :meth:`penstock.runtime.engines.protocol.Engine.compile`."""
        return self.compiled(graph, threads, None)

    def compiled(
        self, graph: XnnGraph, threads: Threads, weights: PackedWeights | None
    ) -> XnnpackExecutable:
        """See :meth:`penstock.runtime.engines.xnnpack.executable.Compiler.compiled`."""
        library = self.library
        pool = threads.pool()
        check_graph(graph)
        shapes = ShapeChecker(graph)
        subgraph = define_graph(library, graph, shapes.bounds)
        runtime = c_void_p()
        flags = FLAG_BASIC_PROFILING if self.profiles else 0
        arrays = (a for arrays in subgraph.constants.values() for a in arrays)
        if not graph.checked:  # not a part of a graph that the blocks expect as a whole
            self._blocks.expect(graph)
        packed = PackedWeights(arrays, self._blocks, weights)
        with interrupts_held(), self.turn.lock:
            status = library.xnn.xnn_create_runtime_v4(
                subgraph.handle,
                packed.provider,
                self._workspace,
                None if pool is None else pool.handle,
                flags,
                byref(runtime),
            )
            library.xnn.xnn_delete_subgraph(subgraph.handle)
            packed.finish()
        if self.turn.garbage:
            self.turn.clean()
        if status:
            raise UnsupportedError(
                f"XNNPACK cannot run this graph ({library.status(status)}); compile the model again"
            )
        kept = unpacked_constants(graph)
        constants = [a for i in kept for a in subgraph.constants.get(i, ())]
        return XnnpackExecutable(
            self,
            graph,
            shapes,
            runtime.value or 0,
            packed,
            constants,
            threads,
            None if pool is None else os.getpid(),
        )

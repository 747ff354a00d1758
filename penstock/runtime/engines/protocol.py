"""The protocol between a program and whatever executes an :class:`XnnGraph`.

An engine turns a graph into an executable, an executable turns arrays into arrays. No type of
the library behind an engine shows here, so that a second engine can stand beside the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from penstock.graph.graph import Node, Shape, XnnGraph
    from penstock.runtime.engines.threads import Threads


#: The name of a time that went into measuring, and would not be spent otherwise.
MEASURING = "measuring"


class NodeTime(NamedTuple):
    """What an operator of an executable cost in its last run. ``node`` is the position among the
    graph's nodes of the one that it belongs to, None where that is not known; ``engine`` is the
    name of what ran it."""

    name: str
    microseconds: float
    node: int | None = None
    engine: str = ""


class Executable(Protocol):
    """A compiled graph. Not to be called from two threads at once.

    Arrays are C-contiguous in physical layout (NHWC for images). Element types: FP32 float32,
    FP16 float16, BF16 uint16 bits, QINT8 int8, QUINT8 uint8, INT32 and QINT32 int32.
    """

    def reshape(self, input_shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Set the shapes of the inputs, in the order of ``graph.inputs``.

        Returns the shapes of the outputs, in the order of ``graph.outputs``. Cheap when nothing
        changes.

        Raises:
            InputError: a shape has another rank than the graph's, exceeds the declared bound, or
                the graph cannot work with it.
        """

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Read ``inputs``, write ``outputs``; shapes as in the last :meth:`reshape`.

        Raises:
            InputError: an array's size, element type or layout is not what the graph expects.
        """

    def profile(self) -> list[NodeTime]:
        """Time of each node in the last run; empty when the engine was not asked to measure."""


@runtime_checkable
class Fixable(Protocol):
    """An executable that may have a quicker way for arrays that are the same each time."""

    def fixed(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
    ) -> Callable[[], None] | None:
        """A function that does what :meth:`Executable.run` does with these very arrays; what has to
        be found out about them is found out once. None where there is no quicker way.

        The shapes are those of the last reshape, and may not be others when the function is called;
        other arrays may come between. It raises what :meth:`Executable.run` raises.
        """


class Engine(Protocol):
    """Compiles graphs. Executables of one engine may share memory and take turns."""

    def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
        """Why ``node`` of ``graph`` should go to another engine: this one cannot run it, or would
        not be faster with it on this machine. None where it should have it.

        Asked of all engines but the last of a list, which takes the rest. ``graph`` has not been
        checked beyond what its reader saw.

        Raises:
            InvalidProgramError: the graph contradicts itself or its constants.
        """

    def compile(self, graph: XnnGraph, *, threads: Threads) -> Executable:
        """Check ``graph`` and make it executable on ``threads``, which the executable keeps if it
        uses their pool.

        Raises:
            InvalidProgramError: the graph contradicts itself or its constants.
            UnsupportedError: the graph is sound, but the engine cannot execute it.
        """


@runtime_checkable
class Clonable(Protocol):
    """An executable that can be had once more without its weights being packed once more."""

    def clone(self, sibling: Callable[[Engine], Engine], threads: Threads) -> Executable | None:
        """An executable of the same graph on the same packed weights, with memory of its own: the
        two may run at the same time. None where a part of it has no such thing.

        ``sibling`` gives, for the engine that made this one, the one that the clone belongs to.
        """


@runtime_checkable
class Adaptable(Protocol):
    """An executable whose packed weights serve the same graph at other sizes."""

    def adapted(self, graph: XnnGraph) -> Executable | None:
        """An executable of ``graph`` on the weights that this one packed, by the same engine. None
        where a part of it has no such thing.

        ``graph`` has the nodes of this one's graph, in the same order, and the same constants;
        shapes, and the sizes in attributes of nodes that move data, may be others.

        Raises what :meth:`Engine.compile` raises.
        """


@runtime_checkable
class Attending(Protocol):
    """An executable that may know what its attention reads."""

    @property
    def skips_hidden(self) -> bool:
        """Whether all its attention leaves out the rows that a mask hides, so that long caches cost
        no time until they are filled."""


@runtime_checkable
class Sibling(Protocol):
    """An engine whose executables write to memory that they share."""

    def sibling(self) -> Engine:
        """An engine of the same options with such memory of its own."""


class KernelSteps(Protocol):
    """What an engine can do of a program's operators outside of delegates, on arrays that stay
    where they are. Steps are opaque; None in their place: it cannot do that."""

    def kernel(self, name: str, args: Sequence[Any], out: np.ndarray) -> Sequence[Any] | None:
        """The kernel ``name`` on these arguments, without its out argument, writing to ``out``."""

    def moved(self, source: np.ndarray, out: np.ndarray) -> Any:
        """The elements of ``source`` copied to ``out``, of the same shape."""

    def scaled_rows(
        self, rows: np.ndarray, scales: np.ndarray, index: np.ndarray, out: np.ndarray
    ) -> Any:
        """``rows``, int8, times ``scales[index]``, to ``out`` float32."""

    def write_rows(
        self, writes: Sequence[tuple[np.ndarray, np.ndarray]], axis: int, index: np.ndarray
    ) -> Any:
        """For each (target, source): the rows of ``source`` to ``target`` at ``index`` of ``axis``;
        none of them where one is out of range."""

    def group(self, steps: Sequence[Any]) -> Callable[[], bool]:
        """A function that does all of them; it says whether it could."""


@runtime_checkable
class Surrounding(Protocol):
    """An engine that can do what a program does around its delegates, whoever runs these."""

    @property
    def kernel_steps(self) -> KernelSteps:
        """What the engine can do."""

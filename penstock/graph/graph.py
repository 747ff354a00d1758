"""The graph of one delegate as plain dataclasses: :class:`XnnGraph`, :class:`Node`, :class:`Value`.

:mod:`penstock.formats.payload_reader` turns a payload's bytes into these classes,
:mod:`penstock.formats.payload_writer` these classes into bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from penstock.graph.dtypes import DataType, Quantization
from penstock.graph.kinds import Attributes, NodeKind

if TYPE_CHECKING:
    import numpy as np

#: Sizes of a tensor, outermost first.
Shape: TypeAlias = "tuple[int, ...]"

#: XNNPACK has no tensors of more dimensions (``XNN_MAX_TENSOR_DIMS``).
MAX_TENSOR_DIMS = 6
#: Stands for "no value": an absent bias, for instance (``XNN_INVALID_VALUE_ID``).
INVALID_VALUE_ID = 0xFFFFFFFF

# xnnpack.h's node flags, as far as payloads use them.
FLAG_TRANSPOSE_WEIGHTS = 0x1
FLAG_TENSORFLOW_SAME_PADDING = 0x4
FLAG_ALIGN_CORNERS = 0x8
FLAG_TRANSPOSE_B = 0x1
FLAG_KEEP_DIMS = 0x40


@dataclass
class Value:
    """A tensor of the graph. ``shape`` is the physical one (NHWC for images).

    A dynamic dimension holds its upper bound. ``data`` makes it a constant: raw bytes or an
    array, row-major, equal objects (by ``is``) are written once. ``external_id`` is the position
    among the delegate call's arguments: inputs first, then outputs.
    """

    id: int
    dtype: DataType
    shape: tuple[int, ...]
    quantization: Quantization | None = None
    data: np.ndarray | bytes | bytearray | memoryview | None = None
    external_id: int | None = None
    is_input: bool = False
    is_output: bool = False


@dataclass
class Node:
    """One XNNPACK node. ``inputs`` are value ids in the order of the schema's fields
    (input, filter, bias for convolutions and FULLY_CONNECTED, with INVALID_VALUE_ID for no bias).

    ``clamp`` is the output's (min, max); ``None`` means unbounded.
    """

    kind: NodeKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Attributes | None = None
    clamp: tuple[float, float] | None = None
    flags: int = 0
    debug_handle: int = 0


@dataclass
class XnnGraph:
    """Values, and nodes in an order in which they can run. ``inputs`` and ``outputs`` are value
    ids ordered by external id.

    A compiler knows more than a payload says: ``varying`` has the ids of the values with a
    dimension that varies from call to call, ``fixed_sizes`` says that none but first dimensions
    vary, so that other sizes are what they seem and not upper bounds.
    """

    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    varying: set[int] = field(default_factory=set, compare=False)
    fixed_sizes: bool = field(default=True, compare=False)
    #: made by the reader of payloads, which has found that it holds together
    sound: bool = field(default=False, compare=False)
    #: part of a graph that an engine has checked, memory included: it need not be checked again,
    #: and its shapes are those that follow from the inputs'
    checked: bool = field(default=False, compare=False)

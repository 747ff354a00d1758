"""An ExecuTorch program (``.pte``) as plain dataclasses.

The facts (field meanings, enum values) are those of ExecuTorch's ``schema/program.fbs`` and
``schema/scalar_type.fbs``. :mod:`penstock.formats.program_reader` turns bytes into these classes,
:mod:`penstock.formats.program_writer` these classes into bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"

#: The id of the backend that we compile for and run.
XNNPACK_BACKEND = "XnnpackBackend"


class ScalarType(IntEnum):
    """Element types, with ExecuTorch's (and PyTorch's) numbers."""

    BYTE = 0
    CHAR = 1
    SHORT = 2
    INT = 3
    LONG = 4
    HALF = 5
    FLOAT = 6
    DOUBLE = 7
    COMPLEXHALF = 8
    COMPLEXFLOAT = 9
    COMPLEXDOUBLE = 10
    BOOL = 11
    QINT8 = 12
    QUINT8 = 13
    QINT32 = 14
    BFLOAT16 = 15
    QUINT4X2 = 16
    QUINT2X4 = 17
    BITS16 = 22
    FLOAT8E5M2 = 23
    FLOAT8E4M3FN = 24
    FLOAT8E5M2FNUZ = 25
    FLOAT8E4M3FNUZ = 26
    UINT16 = 27
    UINT32 = 28
    UINT64 = 29

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return _ELEMENTS[self].size

    @property
    def array(self) -> str | None:
        """The name of the NumPy type of such elements; one of ``ml_dtypes`` where NumPy has none
        of its own. None where neither has."""
        return _ELEMENTS[self].array


class _Element(NamedTuple):
    size: int
    array: str | None = None


_ELEMENTS: Mapping[ScalarType, _Element] = {
    ScalarType.BYTE: _Element(1, "uint8"),
    ScalarType.CHAR: _Element(1, "int8"),
    ScalarType.SHORT: _Element(2, "int16"),
    ScalarType.INT: _Element(4, "int32"),
    ScalarType.LONG: _Element(8, "int64"),
    ScalarType.HALF: _Element(2, "float16"),
    ScalarType.FLOAT: _Element(4, "float32"),
    ScalarType.DOUBLE: _Element(8, "float64"),
    ScalarType.COMPLEXHALF: _Element(4),
    ScalarType.COMPLEXFLOAT: _Element(8, "complex64"),
    ScalarType.COMPLEXDOUBLE: _Element(16, "complex128"),
    ScalarType.BOOL: _Element(1, "bool"),
    ScalarType.QINT8: _Element(1, "int8"),
    ScalarType.QUINT8: _Element(1, "uint8"),
    ScalarType.QINT32: _Element(4, "int32"),
    ScalarType.BFLOAT16: _Element(2, "bfloat16"),
    ScalarType.QUINT4X2: _Element(1),
    ScalarType.QUINT2X4: _Element(1),
    ScalarType.BITS16: _Element(2, "uint16"),
    ScalarType.FLOAT8E5M2: _Element(1, "float8_e5m2"),
    ScalarType.FLOAT8E4M3FN: _Element(1, "float8_e4m3fn"),
    ScalarType.FLOAT8E5M2FNUZ: _Element(1, "float8_e5m2fnuz"),
    ScalarType.FLOAT8E4M3FNUZ: _Element(1, "float8_e4m3fnuz"),
    ScalarType.UINT16: _Element(2, "uint16"),
    ScalarType.UINT32: _Element(4, "uint32"),
    ScalarType.UINT64: _Element(8, "uint64"),
}


class Dynamism(IntEnum):
    """Whether a tensor's shape can change between runs."""

    STATIC = 0
    #: ``Tensor.shape`` is the upper bound of each dimension.
    DYNAMIC_BOUND = 1
    DYNAMIC_UNBOUND = 2


@dataclass(frozen=True)
class Allocation:
    """Where the memory plan puts a tensor: byte ``offset`` in memory ``memory_id`` (from 1 on)."""

    memory_id: int
    offset: int


#: The most dimensions that the stock runtime knows (``kTensorDimensionLimit``).
MAX_RANK = 16


@dataclass
class Tensor:
    """A tensor value of a method.

    Four kinds, told apart as in the format: *constant* (``data``, no ``allocation``), *planned*
    (``allocation``, no ``data``), *planned with an initial state* (both: a mutable buffer), and
    *bound at run time* (neither). A constant whose bytes live in another file has ``external``
    set and ``name`` as its key.
    """

    dtype: ScalarType
    shape: tuple[int, ...]
    #: outermost to innermost; ``None`` means contiguous (0, 1, ..., rank - 1).
    dim_order: tuple[int, ...] | None = None
    dynamism: Dynamism = Dynamism.STATIC
    allocation: Allocation | None = None
    #: raw bytes in ``dim_order``; equal objects (by ``is``) are written once.
    data: Buffer | None = None
    name: str | None = None
    external: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the data, those of the upper bound where the shape is dynamic."""
        return math.prod(self.shape) * self.dtype.size


@dataclass(frozen=True)
class IntList:
    """Integers, each given as the index of an ``int`` value of the method (as the format does)."""

    items: tuple[int, ...]


@dataclass(frozen=True)
class DoubleList:
    items: tuple[float, ...]


@dataclass(frozen=True)
class BoolList:
    items: tuple[bool, ...]


@dataclass(frozen=True)
class TensorList:
    """Tensors, each given as a value index."""

    items: tuple[int, ...]


@dataclass(frozen=True)
class OptionalTensorList:
    """Tensors or ``None``; -1 stands for ``None``."""

    items: tuple[int, ...]


#: One value of a method. Plain Python scalars stand for Null, Int, Bool, Double and String.
Value: TypeAlias = (
    "None | int | bool | float | str | Tensor | IntList | DoubleList | BoolList"
    " | TensorList | OptionalTensorList"
)


@dataclass(frozen=True)
class Operator:
    """A kernel's name, e.g. ``aten::add`` with overload ``out``."""

    name: str
    overload: str

    def __str__(self) -> str:
        return f"{self.name}.{self.overload}" if self.overload else self.name


@dataclass(frozen=True)
class KernelCall:
    """Run ``Method.operators[operator]`` on the values ``args`` (arguments, then outputs)."""

    operator: int
    args: tuple[int, ...]


@dataclass(frozen=True)
class DelegateCall:
    """Run ``Method.delegates[delegate]`` on the values ``args`` (inputs, then outputs)."""

    delegate: int
    args: tuple[int, ...]


@dataclass(frozen=True)
class MoveCall:
    source: int
    target: int


@dataclass(frozen=True)
class JumpFalseCall:
    """Go on at instruction ``destination`` if the bool value ``condition`` is false."""

    condition: int
    destination: int


@dataclass(frozen=True)
class FreeCall:
    """The memory of the (unplanned) tensor ``value`` is not needed any more."""

    value: int


Instruction: TypeAlias = "KernelCall | DelegateCall | MoveCall | JumpFalseCall | FreeCall"


@dataclass(frozen=True)
class CompileSpec:
    key: str
    value: bytes


@dataclass
class Delegate:
    """A part of the method that a backend runs; ``id`` names it."""

    id: str
    payload: Buffer
    compile_specs: tuple[CompileSpec, ...] = ()


@dataclass
class Method:
    """One entry point. ``inputs`` and ``outputs`` index ``values``.

    ``input_structure`` / ``output_structure`` say how the flat lists fold back into Python
    containers, in the format's own notation (see :mod:`penstock.formats.structure`).
    """

    name: str
    values: list[Value]
    inputs: list[int]
    outputs: list[int]
    instructions: list[Instruction]
    operators: list[Operator] = field(default_factory=list)
    delegates: list[Delegate] = field(default_factory=list)
    #: bytes of each planned memory; entry 0 is reserved and stays 0.
    memory_sizes: list[int] = field(default_factory=lambda: [0])
    input_structure: str = ""
    output_structure: str = ""


@dataclass
class Program:
    methods: list[Method]
    #: blobs that delegates look up by name (ExecuTorch's named data store).
    named_data: dict[str, Buffer] = field(default_factory=dict)
    version: int = 0

    def method(self, name: str) -> Method | None:
        return next((m for m in self.methods if m.name == name), None)

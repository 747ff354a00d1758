"""A :class:`~penstock.formats.program.Program` to the bytes of a ``.pte`` file.

The file holds the flatbuffer with the extended header, then segments: all constants, the initial
states of mutable buffers, each delegate's payload, each piece of named data. Every piece of data
is there once, whoever refers to it: named data that is a constant of a method too (the table of an
embedding that is the last layer's weight) is a segment within that of the constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.errors import InvalidProgramError
from penstock.formats.blobs import Blobs, as_bytes, lay_out
from penstock.formats.flatbuffer import Table
from penstock.formats.flatbuffer_builder import encode
from penstock.formats.program import (
    BoolList,
    Buffer,
    Delegate,
    DelegateCall,
    DoubleList,
    FreeCall,
    Instruction,
    IntList,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    OptionalTensorList,
    Program,
    Tensor,
    TensorList,
    Value,
)
from penstock.formats.program_header import insert_header
from penstock.formats.schema import load

#: What kernels may expect of a constant's address, and so of a segment's.
TENSOR_ALIGNMENT = 16
#: The stock flow aligns all segments so; here those of this many bytes at least, since in small
#: files the padding would be most of what there is.
LARGE_ALIGNMENT = 128
LARGE = 4096

_SEGMENT = 1
_EXTERNAL = 1


def write_program(program: Program) -> bytes:
    """The whole file as one object; see :func:`program_chunks`."""
    return b"".join(program_chunks(program))


def program_chunks(program: Program) -> list[Buffer]:
    """The file as pieces to be written one after the other. Constants are not copied: their
    pieces are views of what the program holds.

    Raises:
        InvalidProgramError: a tensor's data is not as long as its shape needs.
    """
    return _Writer(program).chunks()


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program = program
        # Number 0 of these two is reserved by the format: it means "no data".
        self.constants = Blobs()
        self.states = Blobs()
        self.segments = Blobs()
        self.members = {
            name: 1 + i for i, (name, _) in enumerate(load("program").unions["KernelTypes"].members)
        }

    def chunks(self) -> list[Buffer]:
        plans = [self.plan(method) for method in self.program.methods]
        constant_offsets, constants = lay_out(self.constants.pieces, TENSOR_ALIGNMENT)
        state_offsets, states = lay_out(self.states.pieces, TENSOR_ALIGNMENT)
        # The tensors' segments come first; those of delegates count from there (see payload()).
        groups = [group for group in (constants, states) if group]
        shift = len(groups)
        for plan in plans:
            for delegate in plan.delegates:
                delegate.processed.index += shift
        shared: list[tuple[str, int, int]] = []
        named_data: list[Table] = []
        for key, content in self.program.named_data.items():
            number = self.constants.find(content)
            if number is None:
                index = shift + self.segments.add(content)
                named_data.append(Table(key=key, segment_index=index))
            else:
                shared.append((key, constant_offsets[number], as_bytes(content).nbytes))
        groups += [[piece] for piece in self.segments.pieces]
        segments, data = _lay_out_segments(groups)
        size = segments[-1].offset + segments[-1].size if segments else 0
        for key, offset, length in shared:  # a segment within that of the constants
            named_data.append(Table(key=key, segment_index=len(segments)))
            segments.append(Table(offset=segments[0].offset + offset, size=length))
        alignment = max((_alignment(segment.size) for segment in segments), default=1)
        root = Table(
            version=self.program.version,
            execution_plan=plans,
            # Offsets without constants, too: else the stock runtime looks inside the flatbuffer.
            constant_segment=Table(segment_index=0, offsets=[0, *constant_offsets]),
            # The stock flow's own reader expects these two to be there.
            constant_buffer=[],
            backend_delegate_data=[],
            segments=segments,
            named_data=named_data or None,
        )
        if states:
            table = Table(segment_index=shift - 1, offsets=[0, *state_offsets])
            root.mutable_data_segments = [table]
        flatbuffer = encode(load("program"), root)
        return [insert_header(flatbuffer, alignment, size), *data]

    def plan(self, method: Method) -> Table:
        return Table(
            name=method.name,
            container_meta_type=Table(
                encoded_inp_str=method.input_structure, encoded_out_str=method.output_structure
            ),
            values=[
                self.value(f"value {i} of method {method.name!r}", value)
                for i, value in enumerate(method.values)
            ],
            inputs=method.inputs,
            outputs=method.outputs,
            chains=[
                Table(
                    inputs=[],
                    outputs=[],
                    instructions=[_instruction(call) for call in method.instructions],
                )
            ],
            operators=[Table(name=op.name, overload=op.overload) for op in method.operators],
            delegates=[self.delegate(delegate) for delegate in method.delegates],
            non_const_buffer_sizes=method.memory_sizes,
        )

    def value(self, what: str, value: Value) -> Table:
        kind, convert = _VALUES[type(value)]
        table = self.tensor(what, value) if isinstance(value, Tensor) else convert(value)
        return Table(val_type=self.members[kind], val=table)

    def tensor(self, what: str, tensor: Tensor) -> Table:
        order = range(len(tensor.shape)) if tensor.dim_order is None else tensor.dim_order
        table = Table(
            scalar_type=int(tensor.dtype),
            sizes=tensor.shape,
            dim_order=bytes(order),
            shape_dynamism=int(tensor.dynamism),
        )
        if tensor.allocation is not None:
            offset = tensor.allocation.offset
            table.allocation_info = Table(
                memory_id=tensor.allocation.memory_id,
                memory_offset_low=offset & 0xFFFFFFFF,
                memory_offset_high=offset >> 32,
            )
        if tensor.name is not None or tensor.external:
            table.extra_tensor_info = Table(
                fully_qualified_name=tensor.name, location=_EXTERNAL if tensor.external else 0
            )
        if tensor.data is not None and not tensor.external:
            if as_bytes(tensor.data).nbytes != tensor.nbytes:
                raise InvalidProgramError(
                    f"{what} needs {tensor.nbytes} bytes of data"
                    f" and has {as_bytes(tensor.data).nbytes}"
                )
            blobs = self.constants if tensor.allocation is None else self.states
            table.data_buffer_idx = 1 + blobs.add(tensor.data)
        return table

    def delegate(self, delegate: Delegate) -> Table:
        index = self.segments.add(delegate.payload)
        return Table(
            id=delegate.id,
            processed=Table(location=_SEGMENT, index=index),
            compile_specs=[
                Table(key=spec.key, value=spec.value) for spec in delegate.compile_specs
            ],
        )


def _alignment(size: int) -> int:
    return LARGE_ALIGNMENT if size >= LARGE else TENSOR_ALIGNMENT


def _lay_out_segments(groups: list[list[Buffer]]) -> tuple[list[Table], list[Buffer]]:
    """The segments' tables and the chunks of all of them, ``groups`` being the chunks of each."""
    tables: list[Table] = []
    chunks: list[Buffer] = []
    position = 0
    for group in groups:
        size = sum(len(chunk) for chunk in group)
        padding = -position % _alignment(size)
        tables.append(Table(offset=position + padding, size=size))
        chunks += [bytes(padding), *group] if padding else group
        position += padding + size
    return tables, chunks


def _instruction(call: Instruction) -> Table:
    if isinstance(call, KernelCall):
        return _call(1, op_index=call.operator, args=call.args)
    if isinstance(call, DelegateCall):
        return _call(2, delegate_index=call.delegate, args=call.args)
    if isinstance(call, MoveCall):
        return _call(3, move_from=call.source, move_to=call.target)
    if isinstance(call, JumpFalseCall):
        return _call(4, cond_value_index=call.condition, destination_instruction=call.destination)
    assert isinstance(call, FreeCall)
    return _call(5, value_index=call.value)


def _call(number: int, **fields: Any) -> Table:
    return Table(instr_args_type=number, instr_args=Table(**fields))


def _items(value: Any) -> Table:
    return Table(items=value.items)


_VALUES: dict[type, tuple[str, Callable[[Any], Table]]] = {
    type(None): ("Null", lambda value: Table()),
    int: ("Int", lambda value: Table(int_val=value)),
    bool: ("Bool", lambda value: Table(bool_val=value)),
    float: ("Double", lambda value: Table(double_val=value)),
    str: ("String", lambda value: Table(string_val=value)),
    Tensor: ("Tensor", lambda value: Table()),
    IntList: ("IntList", _items),
    DoubleList: ("DoubleList", _items),
    BoolList: ("BoolList", _items),
    TensorList: ("TensorList", _items),
    OptionalTensorList: ("OptionalTensorList", _items),
}

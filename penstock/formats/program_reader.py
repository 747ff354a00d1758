"""The bytes of a ``.pte`` file to a checked :class:`~penstock.formats.program.Program`.

Nothing is copied: constants and payloads are memoryviews into the bytes that were given.
What the returned program says can be relied on: every index is in range and of the right kind,
every tensor's data is as long as its shape needs, every allocation lies within its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from penstock.errors import InvalidProgramError, UnsupportedError, shorten
from penstock.formats.flatbuffer import MAX_REFERENCES, Table, decode
from penstock.formats.program import (
    MAX_RANK,
    Allocation,
    BoolList,
    Buffer,
    CompileSpec,
    Delegate,
    DelegateCall,
    DoubleList,
    Dynamism,
    FreeCall,
    Instruction,
    IntList,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    Operator,
    OptionalTensorList,
    Program,
    ScalarType,
    Tensor,
    TensorList,
    Value,
)
from penstock.formats.program_header import read_frame
from penstock.formats.schema import load

_T = TypeVar("_T")
_NOTHING = memoryview(b"")

_SCHEMA = "program"
_INLINE = 0
_EXTERNAL = 1


def read_program(data: Buffer) -> Program:
    """Read and check a program; ``data`` must live as long as the program is used.

    Raises:
        InvalidProgramError: the bytes are empty, not a .pte, cut short or damaged.
        UnsupportedError: another version of the format, or a feature that nothing here can run.
    """
    view = memoryview(data)
    if view.format != "B" or view.ndim != 1 or not view.c_contiguous:
        view = view.cast("B")
    return _Reader(view).program()


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.frame = read_frame(data)
        flatbuffer = data[: self.frame.program_size]
        self.root = decode(load(_SCHEMA), flatbuffer, "the program")
        self.segments = [self.segment(i, s) for i, s in enumerate(self.root.segments or ())]
        # One view for one piece of data, so that tensors that share data share the object.
        self.views: dict[tuple[str, int, int], memoryview] = {}

    def program(self) -> Program:
        plans = self.root.execution_plan or ()
        names = [_required(plan.name, "the name of a method") for plan in plans]
        if not names:
            raise InvalidProgramError("the program has no methods")
        if len(set(names)) < len(names):
            raise InvalidProgramError(f"the program has two methods of one name: {shorten(names)}")
        methods = [_MethodReader(self, plan).method() for plan in plans]
        named_data: dict[str, Buffer] = {}
        for entry in self.root.named_data or ():
            key = _required(entry.key, "the key of named data")
            if key in named_data:
                raise InvalidProgramError(f"two pieces of data have the name {shorten(key)!r}")
            what = f"named data {shorten(key)!r}"
            named_data[key] = self.data_segment(entry.segment_index, what)
        return Program(methods, named_data, self.root.version)

    def segment(self, index: int, segment: Table) -> memoryview:
        base, end = self.frame.segment_base, self.frame.segment_end
        start = base + segment.offset
        if start + segment.size > end and segment.size:
            raise InvalidProgramError(
                f"segment {index} of the program ({segment.size} bytes at {start}) ends beyond"
                f" byte {end}: the file is damaged or cut short"
            )
        return self.data[start : start + segment.size]

    def data_segment(self, index: int, what: str) -> memoryview:
        return self.segments[_index(index, self.segments, f"the segment of {what}")]

    def constant(self, index: int, size: int, what: str) -> memoryview:
        """``size`` bytes of the constant number ``index``."""
        subsegment = self.root.constant_segment
        if subsegment is not None and subsegment.offsets:
            return self.part("constant", subsegment, index, size, what)
        buffers = self.root.constant_buffer or ()
        buffer = buffers[_index(index, buffers, f"the constant of {what}")]
        return self.cut("inline", index, _or_empty(buffer.storage), 0, size, what)

    def initial_state(self, segments_index: int, index: int, size: int, what: str) -> memoryview:
        lists = self.root.mutable_data_segments or ()
        place = _index(segments_index, lists, f"the initial state's segment of {what}")
        return self.part(f"mutable {place}", lists[place], index, size, what)

    def part(self, kind: str, table: Table, index: int, size: int, what: str) -> memoryview:
        offsets = table.offsets or ()
        offset = offsets[_index(index, offsets, f"the data of {what}")]
        return self.cut(
            kind, index, self.data_segment(table.segment_index, what), offset, size, what
        )

    def cut(
        self, kind: str, index: int, data: memoryview, offset: int, size: int, what: str
    ) -> memoryview:
        if offset + size > len(data):
            raise InvalidProgramError(
                f"{what} needs {size} bytes of data at {offset}, its segment has {len(data)}"
            )
        key = (kind, index, size)
        view = self.views.get(key)
        if view is None:
            view = self.views[key] = data[offset : offset + size]
        return view

    def payload(self, reference: Table, what: str) -> memoryview:
        if reference.location != _INLINE:
            return self.data_segment(reference.index, what)
        inline = self.root.backend_delegate_data or ()
        return _or_empty(inline[_index(reference.index, inline, f"the payload of {what}")].data)


class _MethodReader:
    def __init__(self, reader: _Reader, plan: Table) -> None:
        self.reader = reader
        self.plan = plan
        self.name: str = plan.name
        self.memory_sizes = list(plan.non_const_buffer_sizes or (0,))
        self.values: list[Value] = []
        self.kinds = load(_SCHEMA).unions["KernelTypes"].members
        # Tables may be shared by many others; what is costly is read and checked once.
        self.made: dict[int, Any] = {}

    def at(self, what: str) -> str:
        return f"{what} of method {shorten(self.name)!r}"

    def error(self, what: str, problem: str) -> InvalidProgramError:
        return InvalidProgramError(f"{self.at(what)} {problem}")

    def method(self) -> Method:
        plan = self.plan
        for memory, size in enumerate(self.memory_sizes):
            if size < 0:
                raise self.error(f"memory {memory}", f"has {size} bytes")
        if any(device.device_type for device in plan.non_const_buffer_device or ()):
            raise UnsupportedError(self.at("a memory") + " is on another device than the CPU")
        tables = plan.values or []
        self.values = [self.value(index, table) for index, table in enumerate(tables)]
        checked: set[int] = set()
        for index, value in enumerate(self.values):
            if id(value) not in checked:
                checked.add(id(value))
                self.check_list(f"value {index}", value)
        operators = [
            Operator(_required(op.name, self.at("an operator's name")), op.overload or "")
            for op in plan.operators or ()
        ]
        delegates = [
            self.once(table, partial(self.delegate, index, table))
            for index, table in enumerate(plan.delegates or ())
        ]
        inputs = [self.index(i, self.values, "an input") for i in plan.inputs or ()]
        if len(set(inputs)) < len(inputs):
            raise self.error("the list of inputs", "has a value twice")
        structure = plan.container_meta_type or Table(encoded_inp_str=None, encoded_out_str=None)
        return Method(
            name=self.name,
            values=self.values,
            inputs=inputs,
            outputs=[self.index(i, self.values, "an output") for i in plan.outputs or ()],
            instructions=self.instructions(len(operators), len(delegates)),
            operators=operators,
            delegates=delegates,
            memory_sizes=self.memory_sizes,
            input_structure=structure.encoded_inp_str or "",
            output_structure=structure.encoded_out_str or "",
        )

    def index(self, index: int, items: Any, what: str) -> int:
        return _index(index, items, self.at(what))

    def value(self, index: int, table: Table) -> Value:
        what = f"value {index}"
        val = table.val
        if val is None:
            raise self.error(what, "is missing")
        kind = self.kinds[table.val_type - 1][0]
        if kind == "Tensor":
            return self.tensor(what, val)
        if kind == "Null":
            return None
        if kind in _SCALAR_FIELDS:
            scalar: Value = getattr(val, _SCALAR_FIELDS[kind])
            if scalar is None:
                raise self.error(what, "is a String without text")
            return scalar
        if val.items is None:
            raise self.error(what, "is a list without items")
        made: Value = self.once(val, partial(_LISTS[kind], val.items))
        return made

    def once(self, part: Any, make: Callable[[], _T]) -> _T:
        """What ``make`` makes of a part of the file, made once."""
        if id(part) not in self.made:
            self.made[id(part)] = make()
        made: _T = self.made[id(part)]
        return made

    def check_list(self, what: str, value: Value) -> None:
        """The items that are value indices are in range and of the right kind."""
        if isinstance(value, IntList):
            allowed: tuple[type, ...] = (int, type(None))
        elif isinstance(value, TensorList):
            allowed = (Tensor,)
        elif isinstance(value, OptionalTensorList):
            allowed = (Tensor, type(None))
        else:
            return
        for item in value.items:
            if item == -1 and isinstance(value, OptionalTensorList):
                continue
            target = self.values[self.index(item, self.values, f"an item of {what}")]
            if not isinstance(target, allowed) or isinstance(target, bool):
                raise self.error(what, f"has the item {item}, a {type(target).__name__}")

    def tensor(self, what: str, table: Table) -> Tensor:
        shape = table.sizes or ()
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise self.error(what, f"has the shape {list(shape)[: MAX_RANK + 1]}")
        rank = len(shape)
        dim_order: tuple[int, ...] | None = None
        if table.dim_order is not None:
            dim_order = tuple(table.dim_order[: rank + 1])
            if sorted(dim_order) != list(range(rank)):
                raise self.error(what, f"has {rank} dimensions and the dim order {dim_order}")
            if dim_order == tuple(range(rank)):
                dim_order = None
        if table.storage_offset:
            raise UnsupportedError(f"{self.at(what)} has a storage offset, {table.storage_offset}")
        tensor = Tensor(
            ScalarType(table.scalar_type), shape, dim_order, Dynamism(table.shape_dynamism)
        )
        if table.allocation_info is not None:
            tensor.allocation = self.allocation(what, tensor, table.allocation_info)
        extra = table.extra_tensor_info
        if extra is not None:
            if extra.device_type:
                raise UnsupportedError(f"{self.at(what)} lives on another device than the CPU")
            tensor.name = extra.fully_qualified_name
            tensor.external = extra.location == _EXTERNAL
        if tensor.external:
            _required(tensor.name, self.at(f"the key of the external {what}"))
        elif table.data_buffer_idx:
            number, size = table.data_buffer_idx, tensor.nbytes
            if tensor.allocation is None:
                tensor.data = self.reader.constant(number, size, self.at(what))
            else:
                place = extra.mutable_data_segments_idx if extra is not None else 0
                tensor.data = self.reader.initial_state(place, number, size, self.at(what))
        return tensor

    def allocation(self, what: str, tensor: Tensor, table: Table) -> Allocation:
        memory, offset = table.memory_id, table.memory_offset_low | table.memory_offset_high << 32
        if not 1 <= memory < len(self.memory_sizes):
            raise self.error(what, f"lies in memory {memory} of {len(self.memory_sizes)}")
        size = 0 if tensor.dynamism is Dynamism.DYNAMIC_UNBOUND else tensor.nbytes
        if offset + size > self.memory_sizes[memory]:
            raise self.error(
                what,
                f"({size} bytes at {offset}) ends beyond memory {memory},"
                f" which has {self.memory_sizes[memory]} bytes",
            )
        return Allocation(memory, offset)

    def delegate(self, index: int, table: Table) -> Delegate:
        what = self.at(f"delegate {index}")
        reference = _required(table.processed, f"the payload of {what}")
        specs = []
        for spec in table.compile_specs or ():
            key = _required(spec.key, f"a compile spec's key of {what}")
            value = _or_empty(spec.value)
            specs.append(CompileSpec(key, self.once(value, partial(bytes, value))))
        name: str = _required(table.id, f"the backend of {what}")
        return Delegate(name, self.reader.payload(reference, what), tuple(specs))

    def instructions(self, operators: int, delegates: int) -> list[Instruction]:
        """The chains' instructions one after the other: that is how they are executed."""
        instructions: list[Instruction] = []
        for chain in self.plan.chains or ():
            tables = chain.instructions or ()
            first = len(instructions)
            if first + len(tables) > MAX_REFERENCES:
                raise self.error("the instruction list", f"is longer than {MAX_REFERENCES}")
            end = first + len(tables)
            for table in tables:
                make = partial(self.instruction, table, operators, delegates, first, end)
                is_jump = table.instr_args_type == _JUMP_FALSE_CALL
                instructions.append(make() if is_jump else self.once(table, make))
        return instructions

    def instruction(
        self, table: Table, operators: int, delegates: int, first: int, end: int
    ) -> Instruction:
        """``first`` and ``end`` of its chain: the targets of jumps count from ``first``, and the
        chain's end is one, too."""
        kind, args = table.instr_args_type, table.instr_args
        if args is None:
            raise InvalidProgramError(self.at("an instruction") + " is missing")
        if kind == _KERNEL_CALL:
            operator = self.index(args.op_index, range(operators), "an instruction's operator")
            return KernelCall(operator, self.arguments(args))
        if kind == _DELEGATE_CALL:
            number = self.index(args.delegate_index, range(delegates), "an instruction's delegate")
            return DelegateCall(number, self.arguments(args))
        if kind == _MOVE_CALL:
            return MoveCall(self.argument(args.move_from), self.argument(args.move_to))
        if kind == _JUMP_FALSE_CALL:
            targets = range(first, end + 1)
            target = self.index(args.destination_instruction, targets, "a jump's target")
            return JumpFalseCall(self.condition(args.cond_value_index), targets[target])
        return FreeCall(self.argument(args.value_index))

    def argument(self, index: int) -> int:
        return self.index(index, self.values, "an instruction's argument")

    def arguments(self, args: Table) -> tuple[int, ...]:
        return tuple(map(self.argument, args.args or ()))

    def condition(self, index: int) -> int:
        value = self.values[self.argument(index)]
        is_tensor = isinstance(value, Tensor) and value.dtype is ScalarType.BOOL
        if not is_tensor and not isinstance(value, bool):
            raise self.error(f"value {index}", "decides a jump and is not bool")
        return index


_KERNEL_CALL, _DELEGATE_CALL, _MOVE_CALL, _JUMP_FALSE_CALL = 1, 2, 3, 4
_SCALAR_FIELDS = {
    "Int": "int_val",
    "Bool": "bool_val",
    "Double": "double_val",
    "String": "string_val",
}
_LISTS: dict[str, Any] = {
    "IntList": IntList,
    "DoubleList": DoubleList,
    "BoolList": BoolList,
    "TensorList": TensorList,
    "OptionalTensorList": OptionalTensorList,
}


def _required(value: Any, what: str) -> Any:
    if value is None or value == "":
        raise InvalidProgramError(f"{what} is missing")
    return value


def _or_empty(data: memoryview | None) -> memoryview:
    return _NOTHING if data is None else data


def _index(index: int, items: Any, what: str) -> int:
    if not 0 <= index < len(items):
        raise InvalidProgramError(f"{what} has the index {index}, there are {len(items)}")
    return index

"""What a program asks of the runtime that reads it: backends, kernels, and parts of the formats.

Read off the file's own tables and not off what the readers make of them, which no longer shows how
a fact was written down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock.errors import InvalidProgramError, PenstockError
from penstock.formats.blobs import as_bytes
from penstock.formats.flatbuffer import Table, decode
from penstock.formats.payload_nodes import FORMS
from penstock.formats.payload_reader import MAGIC, payload_root
from penstock.formats.program import XNNPACK_BACKEND, Buffer, Program
from penstock.formats.program_header import read_frame
from penstock.formats.program_reader import read_program
from penstock.formats.releases import Feature
from penstock.formats.schema import load
from penstock.formats.sources import KEY as SOURCES
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import NodeKind

_EXTERNAL = 1


@dataclass
class Needs:
    """What a program needs. Kernels, kinds of nodes and data types come with how often they are
    called or used; ``unreadable`` are the payloads whose graph cannot be read, with the reason."""

    version: int = 0
    backends: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    features: set[Feature] = field(default_factory=set)
    nodes: Counter[NodeKind] = field(default_factory=Counter)
    datatypes: Counter[DataType] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def read_needs(data: Buffer) -> Needs:
    """What the program in ``data`` needs.

    Raises:
        InvalidProgramError, UnsupportedError: as ``read_program`` does.
    """
    program = read_program(data)
    view = as_bytes(data)
    root = decode(load("program"), view[: read_frame(view).program_size], "the program")
    needs = Needs(root.version)
    needs.features.update(_program_features(root))
    # Names of our own that no runtime looks up ask nothing of it.
    if program.named_data.keys() - {SOURCES}:
        needs.features.add(Feature.NAMED_DATA)
    for method in program.methods:
        calls = Counter(getattr(call, "operator", None) for call in method.instructions)
        # A runtime looks all of them up when the method is loaded.
        for number, operator in enumerate(method.operators):
            needs.kernels[str(operator)] += calls[number]
        for number, delegate in enumerate(method.delegates):
            needs.backends[delegate.id] += 1
            if delegate.id == XNNPACK_BACKEND:
                _add_payload(needs, delegate.payload, program, f"{method.name}, delegate {number}")
    return needs


def _program_features(root: Table) -> Iterator[Feature]:
    # Number 0 means "no data".
    if root.constant_segment is not None and len(root.constant_segment.offsets or ()) > 1:
        yield Feature.CONSTANT_SEGMENT
    if root.mutable_data_segments:
        yield Feature.INITIAL_STATE
    for plan in root.execution_plan or ():
        if plan.non_const_buffer_device:
            yield Feature.DEVICE_MEMORY
        for value in plan.values or ():
            extra = getattr(value.val, "extra_tensor_info", None)
            if extra is not None and extra.location == _EXTERNAL:
                yield Feature.EXTERNAL_DATA


def _add_payload(needs: Needs, payload: Buffer, program: Program, where: str) -> None:
    try:
        root = payload_root(payload)
        needs.nodes.update(NodeKind(node.xnode_union_type) for node in root.xnodes or ())
        needs.datatypes.update(_datatypes(root))
        needs.features.update(_payload_features(root, payload, program.named_data))
    except (PenstockError, ValueError) as error:
        needs.unreadable.append(f"{where}: {error}")


def _datatypes(root: Table) -> Iterable[DataType]:
    for value in root.xvalues or ():
        tensor = getattr(value.xvalue_union, "tensor_value", value.xvalue_union)
        if tensor is None:
            raise InvalidProgramError("a value of the XNNPACK graph is empty")
        yield DataType(tensor.datatype)
        if tensor.dq_datatype:
            yield DataType(tensor.dq_datatype)


def _payload_features(
    root: Table, payload: Buffer, named_data: Mapping[str, Buffer]
) -> Iterator[Feature]:
    if bytes(as_bytes(payload)[4:8]) == MAGIC:
        yield Feature.PAYLOAD_HEADER
    named = set()
    for number, constant in enumerate(root.constant_data or ()):
        if constant.named_key:
            named.add(number)
            yield Feature.PAYLOAD_NAMED_CONSTANTS
            if constant.named_key not in named_data:
                yield Feature.EXTERNAL_DATA
    if any(map(_is_sparse, root.xnodes or ())):
        yield Feature.PAYLOAD_SPARSE_POOLING
    packed = set(_packed(root))
    for value in root.xvalues or ():
        union = value.xvalue_union
        tensor = getattr(union, "tensor_value", union)
        if getattr(getattr(union, "quant_params", None), "scale_buffer_idx", 0):
            yield Feature.PAYLOAD_SCALES_APART
        if getattr(getattr(union, "quant_params", None), "num_nonbatch_dims", 1) > 1:
            yield Feature.PAYLOAD_WIDE_TOKENS
        if tensor.constant_buffer_idx in named and tensor.id_out not in packed:
            yield Feature.PAYLOAD_OPERANDS_BY_NAME


def _is_sparse(node: Table) -> bool:
    window = node.xnode_union
    return NodeKind(node.xnode_union_type) is NodeKind.MAX_POOLING_2D and (
        window.stride_height > window.pooling_height or window.stride_width > window.pooling_width
    )


def _packed(root: Table) -> Iterator[int]:
    """The values that XNNPACK copies when its runtime is made: filters and biases."""
    for node in root.xnodes or ():
        kind = NodeKind(node.xnode_union_type)
        if kind.traits.weighted and node.xnode_union is not None:
            for name in FORMS[kind].inputs[1:]:
                yield getattr(node.xnode_union, name)

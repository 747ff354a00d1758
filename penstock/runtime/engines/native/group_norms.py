"""Norms over the places of images and runs of their channels (instance and group norms), which a
file has as means, differences, squares and products."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.errors import InputError
from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.averages import Extent, Extents, average, computed_input
from penstock.runtime.engines.native.chains import Match, Pattern, matches
from penstock.runtime.engines.native.costs import group_norm_gain
from penstock.runtime.engines.native.decoder import VECTOR, family_of_chains
from penstock.runtime.engines.native.family import Step, Workshop


class CGroupNorm(Structure):
    """``struct pk_f32_group_norm_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("epsilon", c_float),
        ("min", c_float),
        ("max", c_float),
        ("images", c_size_t),
        ("places", c_size_t),
        ("channels", c_size_t),
        ("groups", c_size_t),
        ("scale", c_void_p),
        ("shift", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


FAMILY = family_of_chains(
    "f32_group_norm",
    {"pk_f32_group_norm_scratch_size": (c_size_t, (POINTER(CGroupNorm),))},
)


@dataclass(frozen=True)
class Norm:
    """The norm of ``input``, of which ``batch`` dimensions count images and the last one channels;
    ``scale`` and ``shift`` are addresses. ``alike``: what is done is the same for all channels, so
    that a call may have fewer of them: the last dimension of an image may be its width."""

    input: int
    output: int
    epsilon: float
    batch: int
    channels: int
    groups: int
    scale: int
    shift: int
    alike: bool
    clamp: tuple[float, float]
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        shape = shapes[self.input]
        channels = shape[-1]
        fits = channels == self.channels or (self.alike and channels < self.channels)
        if not fits or math.prod(shape) != math.prod(shapes[self.output]):
            raise InputError("the shapes of a call do not fit each other in a norm")
        images, places = math.prod(shape[: self.batch]), math.prod(shape[self.batch : -1])
        library = self.workshop.library
        task = CGroupNorm(
            int(library.isa), self.epsilon, *self.clamp, images, places, channels,
            self.groups, self.scale, self.shift,
        )  # fmt: skip
        scratch = library.functions.pk_f32_group_norm_scratch_size(byref(task))
        fields = ((self.input, "input"), (self.output, "output"))
        return Step("pk_f32_group_norm_run", task, fields, scratch, over=(self.output, self.input))


@dataclass(frozen=True)
class _Statistics:
    """Over what means were taken: ``batch`` dimensions are kept, the channels in ``groups``."""

    batch: int
    groups: int


def group_norm_chains(pattern: Pattern, taken: Container[int]) -> list[Match]:
    """The norms of a graph of which no node's identity is in ``taken``."""
    return matches(pattern, NodeKind.RECIPROCAL_SQUARE_ROOT, taken, partial(_norm, pattern))


def _norm(p: Pattern, inverse: Node) -> Match | None:
    shifted = p.made(inverse.inputs[0], NodeKind.ADD)
    if shifted is None or p.made(inverse.outputs[0], inverse.kind) is None:
        return None
    for variance, small in p.pairs(shifted):
        epsilon, square = p.number(small), _square(p, variance)
        if epsilon is None or square is None:
            continue
        centred = square.inputs[0]
        difference = p.made(centred, NodeKind.SUBTRACT)
        if difference is None:
            continue
        x, mean = difference.inputs
        means, squares = average(p, mean, x), average(p, variance, square.outputs[0])
        if means is None or squares is None:
            continue
        over = _statistics(means[1], p.shapes[mean], p.shapes[x])
        if over is None or _statistics(squares[1], None, p.shapes[x]) != over:
            continue
        nodes = [*means[0], difference, square, *squares[0], shifted, inverse]
        return _scaled(p, x, centred, epsilon, over, squares[1], nodes)
    return None


def _square(p: Pattern, value: int) -> Node | None:
    """The last squares that ``value`` was made of."""
    for _ in range(16):
        node = p.maker(value)
        if node is None or node.kind is NodeKind.SQUARE:
            return p.made(value, NodeKind.SQUARE)
        value = computed_input(p, node)
    return None


def _statistics(extents: Extents, form: Shape | None, shape: Shape) -> _Statistics | None:
    """Of means over places and groups of channels of ``shape``, which have the shape ``form`` where
    they are subtracted."""
    dims = extents.dims(shape, whole=True)
    if dims is None or len(shape) < 2:
        return None
    kinds = [[extents.items[i][1] for i in inside] for inside in dims]
    if form is not None and not _fits(form, shape, kinds):
        return None
    *outer, inner = kinds
    batch = 0
    while batch < len(outer) and Extent.AVERAGED not in outer[batch]:
        batch += 1
    if any(k is Extent.SPREAD for kind in outer for k in kind):
        return None
    if any(k is not Extent.AVERAGED for kind in outer[batch:] for k in kind):
        return None
    if math.prod(shape[batch:-1]) == 1 or shape[-1] < VECTOR:
        return None
    groups, sizes = 1, [extents.items[i][0] for i in dims[-1]]
    while inner and inner[0] is Extent.KEPT:
        groups *= sizes.pop(0)
        inner = inner[1:]
    return None if Extent.KEPT in inner else _Statistics(batch, groups)


def _fits(form: Shape, shape: Shape, kinds: list[list[Extent]]) -> bool:
    """Whether what has the shape ``form`` is repeated along what it is a mean of alone."""
    if len(form) > len(shape):
        return False
    sizes = (1,) * (len(shape) - len(form)) + form
    return all(
        (Extent.AVERAGED not in kind) if here == size else {Extent.AVERAGED} == {*kind}
        for here, size, kind in zip(sizes, shape, kinds, strict=True)
        if size > 1
    ) and all(here in (1, size) for here, size in zip(sizes, shape, strict=True))


def _scaled(
    p: Pattern, x: int, centred: int, epsilon: float, over: _Statistics, extents: Extents,
    nodes: list[Node],
) -> Match | None:  # fmt: skip
    """The rest of a norm: the root, times a scale maybe, times the differences; a scale and a shift
    behind."""
    shape, channels = p.shapes[x], p.shapes[x][-1]
    scale, shift = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    value = nodes[-1].outputs[0]
    while nodes[-1].kind is not NodeKind.MULTIPLY or centred not in nodes[-1].inputs:
        reader = _reader(p, value, NodeKind.STATIC_RESHAPE) or _reader(p, value, NodeKind.MULTIPLY)
        if reader is None or len(nodes) > 64:
            return None
        if reader.kind is NodeKind.MULTIPLY and centred not in reader.inputs:
            factor = _factor(p, value, reader, shape, over.batch)
            if factor is None or reader.clamp is not None:
                return None
            scale = scale * factor
        elif reader.kind is NodeKind.MULTIPLY:
            dims = extents.dims(shape, whole=True)
            kinds = [[extents.items[i][1] for i in inside] for inside in dims or ()]
            if not _fits(p.shapes[value], shape, kinds):
                return None
        nodes.append(reader)
        value = reader.outputs[0]
    reshape = None if nodes[-1].clamp else _reader(p, value, NodeKind.STATIC_RESHAPE)
    if reshape is not None and p.shapes[reshape.outputs[0]][-1:] == (channels,):
        nodes.append(reshape)
    for kind in (NodeKind.MULTIPLY, NodeKind.ADD):
        reader = None if nodes[-1].clamp else _reader(p, nodes[-1].outputs[0], kind)
        for made, other in p.pairs(reader):
            constant = p.constant(other)
            if made == nodes[-1].outputs[0] and constant is not None and reader is not None:
                if math.prod(p.shapes[other]) == channels == (p.shapes[other] or (0,))[-1]:
                    scale = scale * constant if kind is NodeKind.MULTIPLY else scale
                    shift = constant if kind is NodeKind.ADD else shift
                    nodes.append(reader)
                break
    last, ordered = nodes[-1], p.ordered(nodes)
    output = last.outputs[0]
    if not p.closed(ordered) or ordered[-1] is not last or p.values[x].data is not None:
        return None
    if p.shapes[output][-1:] != (channels,) or p.values[output].dtype is not DataType.FP32:
        return None
    clamp = last.clamp or (-math.inf, math.inf)
    pack = partial(_packed, x, output, epsilon, over, scale, shift, clamp)
    return Match(ordered, FAMILY, pack, group_norm_gain(shape))


def _reader(p: Pattern, value: int, kind: NodeKind) -> Node | None:
    """The node that alone reads ``value``, whatever its output range."""
    readers = p.readers(value)
    if len(readers) != 1 or p.values[value].is_output or readers[0].kind is not kind:
        return None
    return readers[0] if not readers[0].flags else None


def _factor(p: Pattern, value: int, product: Node, shape: Shape, batch: int) -> np.ndarray | None:
    """The factor of each channel in a product of a constant with ``value``, which has an element
    for each channel of an image of ``shape``."""
    (other,) = [i for i in product.inputs if i != value] or [value]
    constant, result = p.constant(other), p.shapes[product.outputs[0]]
    if constant is None or result != p.shapes[value]:
        return None
    if math.prod(result) != math.prod(shape[:batch]) * shape[-1]:
        return None
    wide = np.broadcast_to(constant.reshape(p.shapes[other]), result).reshape(-1, shape[-1])
    return wide[0] if (wide == wide[0]).all() else None


def _packed(
    x: int, output: int, epsilon: float, over: _Statistics, scale: np.ndarray, shift: np.ndarray,
    clamp: tuple[float, float], workshop: Workshop,
) -> Norm:  # fmt: skip
    scale_at, shift_at = (
        workshop.packed.keep(np.array(array, np.float32, order="C")) for array in (scale, shift)
    )
    alike = over.groups == 1 and all((array == array[0]).all() for array in (scale, shift))
    return Norm(
        x, output, epsilon, over.batch, scale.size, over.groups, scale_at, shift_at, alike,
        clamp, workshop,
    )  # fmt: skip

"""The family ``f32_deconv``: transposed convolutions in fp32 (``native/f32_deconv.h``)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_size_t, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import OVERREAD, address
from penstock.runtime.engines.native import products
from penstock.runtime.engines.native.costs import transposed_gain
from penstock.runtime.engines.native.family import Family, Packer, Step, Values, Workshop, bias_of
from penstock.runtime.engines.native.products import CShape, CTask
from penstock.runtime.engines.native.rules import no_vectors

#: More steps than a stride of 32 has in both dimensions; each is packed by itself.
_PHASES = 1024


class CPhase(Structure):
    """``struct pk_f32_deconv_phase``."""

    _fields_ = [("task", CTask), ("offset", c_size_t)]


class CTransposed(Structure):
    """``struct pk_f32_deconv_task``."""

    _fields_ = [
        ("count", c_size_t),
        ("phases", POINTER(CPhase)),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


@dataclass(frozen=True)
class Phase:
    """The taps ``rest``, ``rest + stride``, ... of each dimension, packed."""

    rest: tuple[int, int]
    kernel: tuple[int, int]
    shape: CShape
    packed: int


@dataclass(frozen=True)
class Transposed:
    """A node with the weights of its phases packed. ``wide``: a phase has all columns of the
    filter, whose results are one pixel beside the other."""

    node: Node
    phases: tuple[Phase, ...]
    wide: bool
    zero: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        a = self.node.attributes
        assert isinstance(a, Conv2dAttributes)
        read, written = shapes[source], shapes[result]
        stride = (a.stride[0], 1 if self.wide else a.stride[1])
        channels = written[3] * (a.stride[1] if self.wide else 1)
        width = written[2] // a.stride[1] if self.wide else written[2]
        line, library = written[2] * written[3], self.workshop.library
        apart = (stride[0] * line, written[1] * line) if len(self.phases) > 1 else (0, 0)
        made = []
        for phase in self.phases:
            # The first pixel of the phase, how many there are, and where its first tap would be.
            sides = [
                _side(*side)
                for side in zip(
                    (written[1], width), stride, a.padding[0::3], phase.rest, phase.kernel,
                    strict=True,
                )
            ]  # fmt: skip
            (top, height, above), (left, columns, before) = sides
            task = CTask(
                phase.shape, phase.packed, self.zero, None, None,
                read[0], read[1], read[2], height, columns,
                *phase.kernel, 1, 1, 1, 1, above % (1 << 64), before % (1 << 64),
                read[3], stride[1] * channels, *apart,
                *(self.node.clamp or (-math.inf, math.inf)),
                library.caches(), False, self.workshop.threads, None,
            )  # fmt: skip
            if height and columns:
                made.append(CPhase(task, top * line + left * channels))
        each = (CPhase * len(made))(*made)
        return Step(
            "pk_f32_deconv_run",
            CTransposed(len(made), each),
            ((source, "input"), (result, "output")),
        )


def _side(size: int, stride: int, padding: int, rest: int, taps: int) -> tuple[int, int, int]:
    """Of the output pixels ``size`` those that read taps ``rest``, ``rest + stride``, ...: the
    first, how many, and the padding of their convolution, which may be negative."""
    first = (rest - padding) % stride
    count = max(-(-(size - first) // stride), 0)
    return first, count, taps - 1 - (first + padding - rest) // stride


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    reason = products.examine(node, values)
    if isinstance(reason, str):
        return reason
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if max(a.dilation) > 1:
        return "its filter is dilated"
    if any(k < s for k, s in zip(a.kernel, a.stride, strict=True)):
        return "its filter does not reach all of the output"
    if math.prod(a.stride) > _PHASES:
        return "its stride is large"
    return partial(prepare, node, values)


def prepare(node: Node, values: Values, workshop: Workshop) -> Transposed:
    """Packs the weights of ``node``, the taps of each phase backwards."""
    a, filter, bias = node.attributes, values[node.inputs[1]], bias_of(node, values)
    assert isinstance(a, Conv2dAttributes)
    weights = workshop.constant(filter).view(np.float32).reshape(filter.shape)
    shift = None if bias is None else workshop.constant(bias).view(np.float32)
    wide = _is_wide(a)
    if wide:  # [outputs, height, width, inputs] as [width * outputs, height, 1, inputs]
        weights = weights.transpose(2, 0, 1, 3).reshape(-1, a.kernel[0], 1, weights.shape[3])
        shift = None if shift is None else np.tile(shift, a.kernel[1])
    outputs = weights.shape[0] // a.groups
    isa, functions = int(workshop.library.isa), workshop.library.functions
    rows, columns = a.stride[0], 1 if wide else a.stride[1]
    phases = []
    for rest in itertools.product(range(rows), range(columns)):
        part = weights[:, rest[0] :: rows, rest[1] :: columns][:, ::-1, ::-1]
        part = np.ascontiguousarray(part)
        kernel = (part.shape[1], part.shape[2])
        shape = CShape(isa, a.groups, a.group_input_channels, outputs, math.prod(kernel))
        packed = workshop.packed.reserve(functions.pk_f32_igemm_packed_size(byref(shape)))
        functions.pk_f32_igemm_pack(
            byref(shape), address(part), part[0].size, 1,
            None if shift is None else address(shift), packed,
        )  # fmt: skip
        phases.append(Phase(rest, kernel, shape, packed))
    widest = max(phase.kernel[1] for phase in phases)
    zeros = 4 * widest * a.groups * a.group_input_channels + OVERREAD
    return Transposed(node, tuple(phases), wide, workshop.zeros(zeros), workshop)


def _is_wide(a: Conv2dAttributes) -> bool:
    """Whether each input pixel makes so many columns of output pixels by itself."""
    top, right, bottom, left = a.padding
    alone = a.kernel[1] == a.stride[1] and not (right or left or a.adjustment[1])
    return alone and a.groups == 1


FAMILY = Family(
    "f32_deconv",
    frozenset({NodeKind.CONV_TRANSPOSE_2D}),
    examine,
    no_vectors,
    {"pk_f32_deconv_run": (None, (c_void_p, c_void_p))},
    gain=transposed_gain,
)

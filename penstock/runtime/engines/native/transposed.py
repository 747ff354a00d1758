"""The family ``f32_deconv``: transposed convolutions in fp32 (``native/f32_deconv.h``)."""

from __future__ import annotations

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
from penstock.runtime.engines.native.phases import Phase, Phases, phases_of
from penstock.runtime.engines.native.products import CShape, CTask
from penstock.runtime.engines.native.rules import no_vectors


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
class Transposed:
    """A node with the weights of its phases packed."""

    node: Node
    phases: Phases
    packed: tuple[tuple[Phase, CShape, int], ...]
    zero: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        read, written, library = shapes[source], shapes[result], self.workshop.library
        made = []
        for phase, shape, packed in self.packed:
            place = self.phases.place(phase, written)
            if place is None:
                continue
            task = CTask(
                shape, packed, self.zero, None, None,
                read[0], read[1], read[2], place.height, place.width,
                *phase.kernel, 1, 1, 1, 1, place.top % (1 << 64), place.left % (1 << 64),
                read[3], self.phases.pixel(written), *self.phases.apart(written),
                *(self.node.clamp or (-math.inf, math.inf)),
                library.caches(), False, self.workshop.threads, None,
            )  # fmt: skip
            made.append(CPhase(task, place.offset))
        each = (CPhase * len(made))(*made)
        return Step(
            "pk_f32_deconv_run",
            CTransposed(len(made), each),
            ((source, "input"), (result, "output")),
        )


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    reason = products.examine(node, values)
    if isinstance(reason, str):
        return reason
    assert isinstance(node.attributes, Conv2dAttributes)
    phases = phases_of(node.attributes)
    return phases if isinstance(phases, str) else partial(prepare, node, values, phases)


def prepare(node: Node, values: Values, phases: Phases, workshop: Workshop) -> Transposed:
    """Packs the weights of ``node``."""
    a, filter, bias = phases.attributes, values[node.inputs[1]], bias_of(node, values)
    weights = workshop.constant(filter).view(np.float32).reshape(filter.shape)
    shift = None if bias is None else workshop.constant(bias).view(np.float32)
    shift = None if shift is None else phases.of_channels(shift)
    isa, functions = int(workshop.library.isa), workshop.library.functions
    all_packed = []
    for phase, part in phases.parts(weights):
        outputs, taps = part.shape[0] // a.groups, math.prod(phase.kernel)
        shape = CShape(isa, a.groups, a.group_input_channels, outputs, taps)
        packed = workshop.packed.reserve(functions.pk_f32_igemm_packed_size(byref(shape)))
        functions.pk_f32_igemm_pack(
            byref(shape), address(part), part[0].size, 1,
            None if shift is None else address(shift), packed,
        )  # fmt: skip
        all_packed.append((phase, shape, packed))
    widest = max(phase.kernel[1] for phase, _, _ in all_packed)
    zeros = 4 * widest * a.groups * a.group_input_channels + OVERREAD
    return Transposed(node, phases, tuple(all_packed), workshop.zeros(zeros), workshop)


FAMILY = Family(
    "f32_deconv",
    frozenset({NodeKind.CONV_TRANSPOSE_2D}),
    examine,
    no_vectors,
    {"pk_f32_deconv_run": (None, (c_void_p, c_void_p))},
    gain=transposed_gain,
)

"""The family ``qs8_deconv``: transposed convolutions in int8 with static quantization
(``native/qs8_deconv.h``), with the bits of XNNPACK's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_size_t, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.family import Family, Packer, Step, Values, Workshop, bias_of
from penstock.runtime.engines.native.integers import (
    MAX_TAPS,
    CConv,
    Quantities,
    pack,
    quantities_of,
    structure,
)
from penstock.runtime.engines.native.phases import Phase, Phases, phases_of
from penstock.runtime.engines.native.rules import slower_transposed_int8


class CPhase(Structure):
    """``struct pk_qs8_deconv_phase``."""

    _fields_ = [("conv", CConv), ("packed", c_void_p), ("offset", c_size_t)]


class CTransposed(Structure):
    """``struct pk_qs8_deconv_task``."""

    _fields_ = [
        ("count", c_size_t),
        ("phases", POINTER(CPhase)),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


@dataclass(frozen=True)
class Transposed:
    """A node with the weights of its phases packed. The convolutions lack the sizes of their input
    and output."""

    node: Node
    phases: Phases
    packed: tuple[tuple[Phase, CConv, int], ...]
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        read, written = shapes[source], shapes[result]
        made, scratch = [], 0
        for phase, conv, packed in self.packed:
            place = self.phases.place(phase, written)
            if place is None:
                continue
            conv = CConv.from_buffer_copy(conv)
            conv.batch, conv.input_height, conv.input_width = read[:3]
            conv.output_height, conv.output_width = place.height, place.width
            conv.padding_top, conv.padding_left = place.top % (1 << 64), place.left % (1 << 64)
            conv.output_pixel = self.phases.pixel(written)
            conv.output_line, conv.output_image = self.phases.apart(written)
            needed = self.workshop.library.functions.pk_qs8_conv_scratch_size(byref(conv))
            scratch = max(scratch, needed)
            made.append(CPhase(conv, packed, place.offset))
        each = (CPhase * len(made))(*made)
        task = CTransposed(len(made), each)
        return Step("pk_qs8_deconv_run", task, ((source, "input"), (result, "output")), scratch)


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if node.flags or math.prod(a.kernel) > MAX_TAPS:
        return f"its kernel has more than {MAX_TAPS} taps, or flags that our kernels do not know"
    phases = phases_of(a)
    if isinstance(phases, str):
        return phases
    found = quantities_of(node, values)
    return found if isinstance(found, str) else partial(prepare, node, values, phases, found)


def prepare(
    node: Node, values: Values, phases: Phases, quantities: Quantities, workshop: Workshop
) -> Transposed:
    """Packs the weights of ``node``."""
    a, filter, bias = phases.attributes, values[node.inputs[1]], bias_of(node, values)
    weights = workshop.constant(filter).view(np.int8).reshape(filter.shape)
    shift = None if bias is None else workshop.constant(bias).view(np.int32)
    shift = None if shift is None else phases.of_channels(shift)
    scales = phases.of_channels(quantities.scales)
    # Each pixel of the input makes one of each phase.
    whole = a.kernel == a.stride and not any(a.padding) and not any(a.adjustment)
    packed = []
    for phase, part in phases.parts(weights):
        channels = (a.groups, a.group_input_channels, part.shape[0] // a.groups)
        conv = structure(quantities, channels, (phase.kernel, (1, 1), (1, 1)), workshop)
        assert isinstance(conv, CConv)
        conv.flat = whole
        bias_at = None if shift is None else address(shift)
        packed.append((phase, conv, pack(conv, address(part), bias_at, scales, workshop)))
    return Transposed(node, phases, tuple(packed), workshop)


FAMILY = Family(
    "qs8_deconv",
    frozenset({NodeKind.CONV_TRANSPOSE_2D}),
    examine,
    slower_transposed_int8,
    {"pk_qs8_deconv_run": (None, (c_void_p, c_void_p))},
    overread=True,
)

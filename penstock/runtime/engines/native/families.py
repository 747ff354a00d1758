"""The families of kernels, one row each. A node goes to the first that can run it."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_char_p, c_uint32

from penstock.errors import DISTRIBUTION, BackendUnavailableError
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native import (
    binary,
    cells,
    conversions,
    decoder,
    depthwise,
    dynamic,
    dynamic_images,
    group_norms,
    int4,
    int8_rows,
    integers,
    interleave,
    lookup,
    means,
    means_fp32,
    norms,
    plan,
    products,
    program_tasks,
    sdpa,
    sums,
    transposed,
    transposed_int8,
)
from penstock.runtime.engines.native.family import Family
from penstock.runtime.engines.native.library import Library, bind

FAMILIES: tuple[Family, ...] = (
    products.FAMILY,
    transposed.FAMILY,
    depthwise.FAMILY,
    sums.FAMILY,
    integers.CONVOLUTION,
    integers.DEPTHWISE,
    transposed_int8.FAMILY,
    dynamic.QUANTIZE,
    dynamic.PRODUCT,
    dynamic_images.FAMILY,
    int4.FAMILY,
    lookup.FAMILY,
    interleave.FAMILY,
    binary.FAMILY,
    means.FAMILY,
    means_fp32.FAMILY,
    *decoder.FAMILIES,
    *int8_rows.FAMILIES,
    *conversions.FAMILIES,
    cells.FAMILY,
    cells.INT8,
    sdpa.FAMILY,
    group_norms.FAMILY,
    norms.FAMILY,
)


#: Those that a node of each kind may go to.
BY_KIND: Mapping[NodeKind, tuple[Family, ...]] = {
    kind: tuple(family for family in FAMILIES if kind in family.kinds) for kind in NodeKind
}


def bind_families(library: Library) -> None:
    """Give the functions that plans and families call their types.

    Raises BackendUnavailableError if one is missing.
    """
    try:
        bind(library.functions, plan.PROTOTYPES)
        bind(library.functions, program_tasks.PROTOTYPES)
        for family in FAMILIES:
            bind(library.functions, family.prototypes)
            bind(library.functions, {f"pk_{family.name}_kernel": (c_char_p, (c_uint32,))})
    except AttributeError as error:
        raise BackendUnavailableError(
            f"our own kernels at {library.path} cannot be used ({error}); reinstall {DISTRIBUTION}"
        ) from None


def kernel_names(library: Library) -> dict[str, str]:
    """For each family the name of the kernel that runs here."""
    bind_families(library)
    return {
        family.name: getattr(library.functions, f"pk_{family.name}_kernel")(library.isa).decode()
        for family in FAMILIES
    }

"""Why operators without an entry stay outside XNNPACK, by what they do."""

from __future__ import annotations

from torch.fx import Node

from penstock.compiler.delegate.operators.constraints import (
    SUPPORTED_FLOATS,
    only_floats,
    tensors_of,
)
from penstock.compiler.fx.marks import REFUSED_IN_DEFINITION

#: By the operator's name without overload.
_REASONS: dict[str, tuple[str, ...]] = {
    "XNNPACK has no node that picks values by computed indices": (
        "_embedding_bag",
        "embedding",
        "embedding_bag",
        "gather",
        "grid_sampler",
        "grid_sampler_2d",
        "grid_sampler_3d",
        "index",
        "index_select",
        "take",
        "take_along_dim",
    ),
    "XNNPACK has no node that writes to computed indices": (
        "index_add",
        "index_copy",
        "index_fill",
        "index_put",
        "index_reduce",
        "masked_scatter",
        "put",
        "scatter",
        "scatter_add",
        "scatter_reduce",
    ),
    "XNNPACK has no node that orders values or tells their places": (
        "argmax",
        "argmin",
        "argsort",
        "bucketize",
        "cummax",
        "cummin",
        "kthvalue",
        "median",
        "mode",
        "msort",
        "nanmedian",
        "searchsorted",
        "sort",
        "topk",
    ),
    "the size of its result depends on data, XNNPACK's sizes follow from those of its inputs": (
        "_unique2",
        "bincount",
        "masked_select",
        "nonzero",
        "repeat_interleave",
        "unique",
        "unique_consecutive",
        "unique_dim",
    ),
    "XNNPACK has no node that tells what is not a number, or infinite, on all machines alike": (
        "isfinite",
        "isnan",
        "nan_to_num",
        "nanmean",
        "nansum",
    ),
    "it makes a tensor of dynamic size from none, XNNPACK's sizes follow from inputs": (
        "arange",
        "full",
        "full_like",
        "ones",
        "ones_like",
        "zeros",
        "zeros_like",
    ),
    "XNNPACK has no state: what a call leaves to the next, or in an input, is written outside": (
        "copy",
    ),
    "XNNPACK has no complex numbers, which this makes or reads": (
        "_fft_c2r",
        "_fft_r2c",
        "view_as_real",
    ),
    "XNNPACK has no random numbers": (
        "bernoulli",
        "dropout",
        "exponential",
        "multinomial",
        "native_dropout",
        "normal",
        "normal_functional",
        "poisson",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "randperm",
        "uniform",
    ),
}


def reason(node: Node) -> str:
    """What XNNPACK lacks to run ``node``, for which there is no entry."""
    tensors = tensors_of(node)
    if tensors and not any(t.dtype in SUPPORTED_FLOATS for t in tensors):
        text = only_floats(node)
        if text is not None:
            return text
    name = _name(node)
    for text, names in _REASONS.items():
        if name in names:
            return text
    text = f"nothing makes {node.target} from XNNPACK's nodes"
    refused = node.meta.get(REFUSED_IN_DEFINITION)
    return text if refused is None else f"{text}: {refused}"


def _name(node: Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[-1].rstrip("_") if schema is not None else ""

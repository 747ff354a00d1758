"""What an earlier stage tells a later one by the graph itself: keys of ``node.meta``, and operators
that stand for reads and writes of state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

#: Key of ``meta``: why a node is not to be quantized.
FLOAT_ONLY = "float_only"
#: Key of ``meta``: what a constant was computed from, a :class:`Made`.
MADE = "made"
#: Key of ``meta``: attention's mask is known to leave no row empty.
EVERY_ROW_SEES = "every_row_sees"
#: Key of ``meta``: what a minimum or maximum that bounds away what is masked puts there.
FILLS_WITH = "fills_with"
#: Key of ``meta``: which arguments of a choice are numbers wherever they are not chosen, and which
#: of them are finite there.
NUMBERS_IF_NOT_CHOSEN = "numbers_if_not_chosen"
FINITE_IF_NOT_CHOSEN = "finite_if_not_chosen"
#: Key of ``meta``: what of a node's definition XNNPACK cannot run, in words.
REFUSED_IN_DEFINITION = "refused_in_definition"
#: Keyword of a control flow call: which of its results are stacked.
STACKED = "stacked"
#: Key of ``meta``: the buffer that a placeholder stands for.
BUFFER = "penstock_buffer"


@dataclass(frozen=True)
class Made:
    """Of a constant that the compiler computed: by which operator, where in the model that stands,
    and how many bytes of the model's own constants went into it."""

    operator: str
    place: str
    source_bytes: int


_library = torch.library.Library("penstock", "FRAGMENT")
if not hasattr(torch.ops.penstock, "state"):
    _library.define("state(Tensor buffer) -> Tensor")
    _library.impl("state", lambda buffer: buffer.clone(), "CompositeExplicitAutograd")

if not hasattr(torch.ops.penstock, "write_back"):
    _library.define("write_back(Tensor input, Tensor value) -> ()")
    _library.impl("write_back", lambda input, value: None, "CompositeExplicitAutograd")

#: Gives a buffer what the next call finds in it.
STORE = torch.ops.aten.copy_.default
#: The value that a buffer has when the program is called.
STATE = torch.ops.penstock.state.default
#: Says what the caller finds in an input after the call. Done as a graph runs, in calibration say,
#: it does nothing: the data are the caller's.
WRITE_BACK = torch.ops.penstock.write_back.default
torch.fx.node.has_side_effect(WRITE_BACK)
#: Gives a buffer, or an input, new rows, and leaves the others as they are.
PUT = torch.ops.aten.index_put_.default
#: What changes buffers and inputs when all else is done.
STORES = (STORE, PUT)


def attention_of_parts(
    query: torch.Tensor,
    parts: list[torch.Tensor],
    mask: torch.Tensor,
    scale: float,
    cap: float = 0.0,
) -> torch.Tensor:
    """Attention of ``query`` [batch, heads, rows, size] to keys and values in two parts: ``parts``
    are the old keys, the new ones, the old values, the new ones, [batch, shared heads, any, size].
    ``mask`` [..., rows, old + new] is additive. A ``cap`` that is not 0 bounds the scores, before
    the mask: ``cap * tanh(score / cap)``."""
    key, value = torch.cat(parts[:2], -2), torch.cat(parts[2:], -2)
    one_each = statically_known_true(key.shape[-3] == query.shape[-3])
    if cap:
        if not one_each:
            times = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(times, -3) for x in (key, value))
        scores = torch.tanh(query @ key.transpose(-1, -2) * (scale / cap)) * cap
        return (scores + mask).softmax(-1) @ value
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=scale, enable_gqa=not one_each
    )


if not hasattr(torch.ops.penstock, "attention_of_parts"):
    _library.define(
        "attention_of_parts(Tensor query, Tensor[] parts, Tensor mask, float scale, float cap=0.0)"
        " -> Tensor"
    )
    _library.impl("attention_of_parts", attention_of_parts, "CompositeExplicitAutograd")
    _library.impl("attention_of_parts", lambda query, *others: torch.empty_like(query), "Meta")
ATTENTION_OF_PARTS = torch.ops.penstock.attention_of_parts.default


def places_of_largest(x: torch.Tensor, k: int, dim: int, largest: bool) -> torch.Tensor:
    """Where the ``k`` largest (or smallest) of ``dim`` lie, of equal ones the first: ``dim`` has
    ``k`` of them, largest first, and a new last dimension a 1 at the place of each."""
    order = torch.sort(x, dim=dim, descending=largest, stable=True)[1].narrow(dim, 0, k)
    return torch.nn.functional.one_hot(order, x.shape[dim]).to(x.dtype)


def _empty_places(x: torch.Tensor, k: int, dim: int, largest: bool) -> torch.Tensor:
    shape = [*x.shape, x.shape[dim]]
    shape[dim % x.dim()] = k
    return x.new_empty(shape)


if not hasattr(torch.ops.penstock, "places_of_largest"):
    _library.define("places_of_largest(Tensor x, int k, int dim, bool largest) -> Tensor")
    _library.impl("places_of_largest", places_of_largest, "CompositeExplicitAutograd")
    _library.impl("places_of_largest", _empty_places, "Meta")
PLACES_OF_LARGEST = torch.ops.penstock.places_of_largest.default

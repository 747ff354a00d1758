"""The families of what a decoder's layers do between their products: norms, rotary embeddings,
attention over a cache, gated activations. Each runs a chain of nodes.
:mod:`penstock.runtime.engines.native.decoder_chains` finds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.errors import InputError
from penstock.graph.graph import Node, Shape
from penstock.runtime.engines.native.family import Family, Step, Values, Workshop
from penstock.runtime.engines.native.isa import VECTORS
from penstock.runtime.engines.native.library import Library, Prototype

#: Sizes of a head must fill whole vectors.
VECTOR = 16


class CNorm(Structure):
    """``struct pk_f32_norm_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("epsilon", c_float),
        ("rows", c_size_t),
        ("channels", c_size_t),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CTurn(Structure):
    """``struct pk_f32_turn_task``."""

    _fields_ = [
        ("rows", c_size_t),
        ("heads", c_size_t),
        ("half", c_size_t),
        ("cosine", c_void_p),
        ("sine", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CHeads(Structure):
    """``struct pk_f32_heads_task``."""

    _fields_ = [
        ("rows", c_size_t),
        ("heads", c_size_t),
        ("size", c_size_t),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CGate(Structure):
    """``struct pk_f32_gate_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("cubic", c_float),
        ("linear", c_float),
        ("count", c_size_t),
        ("a", c_void_p),
        ("b", c_void_p),
        ("output", c_void_p),
        ("form", c_uint32),
    ]


class CAttention(Structure):
    """``struct pk_f32_attention_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("factor", c_float),
        ("cap", c_float),
        ("tokens", c_size_t),
        ("key_heads", c_size_t),
        ("group", c_size_t),
        ("size", c_size_t),
        ("old", c_size_t),
        ("mask_rows", c_size_t),
        ("threads", c_size_t),
        ("query", c_void_p),
        ("old_keys", c_void_p),
        ("new_keys", c_void_p),
        ("old_values", c_void_p),
        ("new_values", c_void_p),
        ("key_scales", c_void_p),
        ("value_scales", c_void_p),
        ("mask", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


@dataclass(frozen=True)
class Norm:
    """``x / sqrt(mean(x ** 2) + epsilon) * weight`` over the last dimension of the output, of which
    the input may be another shape. ``x`` is the input; with a ``bias``, which is added in the end,
    it is the input less its mean. Both are addresses of copies."""

    input: int
    output: int
    epsilon: float
    channels: int
    weight: int
    bias: int | None
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        *rows, channels = shapes[self.output]
        _check(channels == self.channels)
        _check(math.prod(shapes[self.input]) == math.prod(shapes[self.output]))
        isa = int(self.workshop.library.isa)
        task = CNorm(isa, self.epsilon, math.prod(rows), channels, self.weight, self.bias)
        return Step("pk_f32_norm_run", task, ((self.input, "input"), (self.output, "output")))


@dataclass(frozen=True)
class Turn:
    """A rotary embedding of ``input`` [1, rows, heads, 2 * half], which may have another shape of
    the same elements, by ``cosine`` and ``sine`` [rows, 1, 2 * half]."""

    input: int
    cosine: int
    sine: int
    output: int
    heads: int

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        rows, one, size = shapes[self.cosine]
        wanted = (rows * self.heads * size, one, shapes[self.cosine])
        _check((math.prod(shapes[self.input]), 1, shapes[self.sine]) == wanted)
        task = CTurn(rows, self.heads, size // 2)
        fields = (
            (self.input, "input"), (self.cosine, "cosine"), (self.sine, "sine"),
            (self.output, "output"),
        )  # fmt: skip
        return Step("pk_f32_turn_run", task, fields)


@dataclass(frozen=True)
class Heads:
    """``input`` [1, rows, heads, size], which may have another shape of the same elements, to
    ``output`` [1, heads, rows, size]; elements have ``itemsize`` bytes."""

    input: int
    output: int
    itemsize: int = 4

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        _, heads, rows, size = shapes[self.output]
        _check(math.prod(shapes[self.input]) == rows * heads * size)
        task = CHeads(rows, heads, size * self.itemsize)
        return Step("pk_f32_heads_run", task, ((self.input, "input"), (self.output, "output")))


@dataclass(frozen=True)
class Copy:
    """``input`` in another shape."""

    input: int
    output: int
    itemsize: int = 4

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        count = math.prod(shapes[self.output])
        _check(math.prod(shapes[self.input]) == count)
        task = CHeads(1, 1, count * self.itemsize)
        return Step("pk_f32_heads_run", task, ((self.input, "input"), (self.output, "output")))


@dataclass(frozen=True)
class Gate:
    """``a * sigmoid(a * (cubic * a ** 2 + linear)) * b``."""

    a: int
    b: int
    output: int
    cubic: float
    linear: float
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        _check(shapes[self.a] == shapes[self.b])
        isa = int(self.workshop.library.isa)
        task = CGate(isa, self.cubic, self.linear, math.prod(shapes[self.a]))
        fields = ((self.a, "a"), (self.b, "b"), (self.output, "output"))
        return Step("pk_f32_gate_run", task, fields, over=(self.output, self.a))


@dataclass(frozen=True)
class Attention:
    """Queries [1, tokens, heads, size] over the rows of a cache and new ones, keys and values
    [1, key heads, rows, size] each, but for the new keys, [1, tokens, key heads, size]; ``mask``
    [.., rows, old + new] is added to the scores times ``factor``, which a ``cap`` that is not 0
    bounds (``cap * tanh(score)``). The old rows are int8 where they have ``key_scales`` and
    ``value_scales`` [1, key heads, rows, 1]. The output has as many elements as the queries."""

    query: int
    old_keys: int
    new_keys: int
    old_values: int
    new_values: int
    mask: int
    output: int
    factor: float
    cap: float = 0.0
    key_scales: int | None = None
    value_scales: int | None = None

    def fits(self, shapes: Mapping[int, Shape]) -> bool:
        """Whether the kernel can be run at these shapes."""
        inputs = (self.query, self.old_keys, self.old_values, self.new_keys, self.new_values)
        found = [shapes[i] for i in inputs]
        if any(len(shape) != 4 or shape[0] != 1 for shape in found):
            return False
        (_, tokens, heads, size), old, old_values, new_keys, new_values = found
        _, key_heads, count, _ = old
        *rows, columns = shapes[self.mask]
        scales = [shapes[i] for i in (self.key_scales, self.value_scales) if i is not None]
        return (
            all(shape == (*old[:-1], 1) for shape in scales)
            and old == old_values == (1, key_heads, count, size)
            and new_keys == (1, tokens, key_heads, size)
            and new_values == (1, key_heads, tokens, size)
            and size % VECTOR == 0
            and key_heads > 0
            and heads % key_heads == 0
            and columns == count + tokens
            and math.prod(rows) in (tokens, heads // key_heads * tokens)
            and rows[-1:] == [math.prod(rows)]
        )


@dataclass(frozen=True)
class PreparedAttention:
    """See :class:`Attention`."""

    attention: Attention
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        a = self.attention
        _check(a.fits(shapes))
        _, tokens, heads, size = shapes[a.query]
        _, key_heads, old, _ = shapes[a.old_keys]
        *rows, _ = shapes[a.mask]
        library, threads = self.workshop.library, self.workshop.threads
        task = CAttention(
            int(library.isa), a.factor, a.cap, tokens, key_heads, heads // key_heads, size, old,
            math.prod(rows), threads,
        )  # fmt: skip
        names = ["query", "old_keys", "new_keys", "old_values", "new_values", "mask", "output"]
        if a.key_scales is not None:
            names += ["key_scales", "value_scales"]
        fields = tuple((int(getattr(a, name)), name) for name in names)
        scratch: int = library.functions.pk_f32_attention_scratch_size(byref(task))
        return Step("pk_f32_attention_run", task, fields, scratch)


def _check(fits: bool) -> None:
    """Bounds that fit do not make the sizes of a call so."""
    if not fits:
        raise InputError("the shapes of a call do not fit each other in a decoder's layer")


def _no_node(node: Node, values: Values) -> str:
    return "it is no part of a decoder's layer"


def _slower(node: Node, values: Values, library: Library) -> str | None:
    if library.has(VECTORS):
        return None
    return "there are no vector kernels for this machine"


def family_of_chains(name: str, more: Mapping[str, Prototype] | None = None) -> Family:
    """The family ``name`` of a decoder, which runs chains alone."""
    prototypes: dict[str, Prototype] = {f"pk_{name}_run": (None, (c_void_p, c_void_p))}
    # Chains are prepared as a whole.
    return Family(name, frozenset(), _no_node, _slower, {**prototypes, **(more or {})})


NORM = family_of_chains("f32_norm")
TURN = family_of_chains("f32_turn")
HEADS = family_of_chains("f32_heads")
GATE = family_of_chains("f32_gate")
ATTENTION = family_of_chains(
    "f32_attention",
    {"pk_f32_attention_scratch_size": (c_size_t, (POINTER(CAttention),))},
)
FAMILIES = (NORM, TURN, HEADS, GATE, ATTENTION)

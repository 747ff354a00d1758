"""Methods without inputs that give constants: what a program says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from penstock.compiler.program.containers import structure_of
from penstock.compiler.program.method_values import SCALAR_TYPES
from penstock.compiler.program.tensor_bytes import tensor_bytes
from penstock.errors import InputError
from penstock.formats import program as pte
from penstock.formats.structure import encode

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What the format holds an integer in.
_LARGEST = 1 << 63


def constant_methods(given: Mapping[str, Any], taken: str) -> list[pte.Method]:
    """A method for each name, which takes nothing and returns the value: numbers, texts, None,
    tensors, or lists, tuples and dicts of them, as the stock flow's ``constant_methods``.

    Raises :class:`InputError` for a name that is none, or is the model's own method ``taken``, and
    for values that files cannot hold.
    """
    if not isinstance(given, Mapping):
        raise InputError(
            f"constant_methods is a {type(given).__name__}; give a dict with a value for each name"
        )
    return [_method(name, value, taken) for name, value in given.items()]


def _method(name: str, value: Any, taken: str) -> pte.Method:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"a constant method has the name {name!r}; give one like get_max_seq_len")
    if name == taken:
        raise InputError(f"a constant method cannot be called {name!r}: the model's method is")
    leaves, spec = pytree.tree_flatten(value)
    values = [_value(name, leaf) for leaf in leaves]
    return pte.Method(
        name=name,
        values=values,
        inputs=[],
        outputs=list(range(len(values))),
        instructions=[],
        memory_sizes=[0, 0],
        input_structure=encode(structure_of(pytree.tree_flatten(((), {}))[1])),
        output_structure=encode(structure_of(spec)),
    )


def _value(name: str, leaf: Any) -> pte.Value:
    if isinstance(leaf, int) and not -_LARGEST <= leaf < _LARGEST:
        raise InputError(
            f"the constant method {name!r} gives {leaf}, which needs more than 64 bits"
        )
    if leaf is None or isinstance(leaf, (bool, int, float, str)):
        return leaf
    if isinstance(leaf, torch.Tensor) and leaf.dtype in SCALAR_TYPES and leaf.numel():
        data = tensor_bytes(leaf).tobytes()
        return pte.Tensor(SCALAR_TYPES[leaf.dtype], tuple(leaf.shape), data=data)
    raise InputError(
        f"the constant method {name!r} gives a {type(leaf).__name__}; numbers, texts, None and "
        "tensors are what files can hold"
    )

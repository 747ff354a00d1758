"""The containers that a model takes and gives, as files say them."""

from __future__ import annotations

import collections

from torch.utils import _pytree as pytree

from penstock.errors import ExportError
from penstock.formats.structure import LEAF, Structure


def structure_of(spec: pytree.TreeSpec) -> Structure:
    """What a file can say of PyTorch's ``spec``: tuples, lists and dicts as they are; named tuples
    as tuples; dataclasses, and other classes that name their members, as dicts.

    Raises :class:`ExportError` for dict keys other than texts and integers.
    """
    if spec.is_leaf():
        return LEAF
    children = tuple(structure_of(child) for child in spec.children())
    if spec.type is list or spec.type is collections.deque:
        return Structure("list", children)
    if spec.type in (dict, collections.OrderedDict, collections.defaultdict):
        keys = spec.context[1] if spec.type is collections.defaultdict else spec.context
        wrong = [key for key in keys if type(key) not in (str, int)]
        if wrong:
            raise ExportError(
                f"a dict has the key {wrong[0]!r}: files hold only texts and integers as keys"
            )
        kind = "ordered_dict" if spec.type is collections.OrderedDict else "dict"
        return Structure(kind, children, tuple(keys))
    names = None if spec.type in (tuple, collections.namedtuple) else _names(spec, len(children))
    if names is None:
        return Structure("tuple", children)
    return Structure("dict", children, names)


def _names(spec: pytree.TreeSpec, count: int) -> tuple[str, ...] | None:
    """The members' names, which classes keep in their context, some with more besides."""
    context = spec.context if isinstance(spec.context, (list, tuple)) else ()
    for candidate in (context, *context):
        if isinstance(candidate, (list, tuple)) and len(candidate) == count:
            names = tuple(name for name in candidate if isinstance(name, str))
            if len(set(names)) == count:
                return names
    return None

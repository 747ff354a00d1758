"""How flat lists of inputs and outputs fold into Python containers, and how files say it.

Files hold this structure as text, in one of two notations; both are read, the first is written:

- PyTorch's pytree JSON (what ``torch.utils._pytree.treespec_dumps`` makes, and the stock flow
  writes): ``[1, {"type": "builtins.tuple", "context": "null", "children_spec": [...]}]``, a leaf
  being the node whose type is null;
- ExecuTorch's own short one (``extension/pytree/pytree.h``): ``T2#1#2($,D2#1#1('a':$,'b':$))``
  with ``T`` tuple, ``N`` named tuple, ``L`` list, ``D`` dict, ``$`` leaf, and after ``#`` the
  number of leaves of each child.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock.errors import InputError

#: Deeper structures are not read: nobody writes them, and reading is recursive.
MAX_DEPTH = 100

Key: TypeAlias = "str | int"


@dataclass(frozen=True)
class Structure:
    """A node: ``kind`` is "leaf", "tuple", "list", "dict" or "ordered_dict"; ``keys`` are those
    of the dicts, in the order of the children."""

    kind: str
    children: tuple[Structure, ...] = ()
    keys: tuple[Key, ...] = ()

    @property
    def leaves(self) -> int:
        """How many leaves there are below (1 for a leaf itself)."""
        return 1 if self.kind == "leaf" else sum(child.leaves for child in self.children)


LEAF = Structure("leaf")

_TYPES = {
    "tuple": "builtins.tuple",
    "list": "builtins.list",
    "dict": "builtins.dict",
    "ordered_dict": "collections.OrderedDict",
}
_KINDS = {name: kind for kind, name in _TYPES.items()}


def structure_of(value: Any) -> Structure:
    """The structure of tuples, lists and dicts; anything else, None too, is a leaf.

    Raises:
        InputError: a dict has keys that are neither texts nor integers: files cannot hold them.
    """
    if isinstance(value, Mapping):
        kind = "ordered_dict" if isinstance(value, OrderedDict) else "dict"
        for key in value:
            if type(key) not in (str, int):
                raise InputError(f"a dict has the key {key!r}: only texts and integers can be keys")
        return Structure(kind, tuple(map(structure_of, value.values())), tuple(value))
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return Structure(kind, tuple(map(structure_of, value)))
    return LEAF


def encode(structure: Structure) -> str:
    """The structure in PyTorch's notation."""
    return json.dumps([1, _to_json(structure)])


def _to_json(structure: Structure) -> dict[str, Any]:
    if structure.kind == "leaf":
        return {"type": None, "context": None, "children_spec": []}
    return {
        "type": _TYPES[structure.kind],
        "context": json.dumps(list(structure.keys) if "dict" in structure.kind else None),
        "children_spec": [_to_json(child) for child in structure.children],
    }


def decode(text: str) -> Structure | None:
    """The structure that ``text`` says in either notation; None if it says none that is known.

    Containers of other classes become dicts if their context lists keys, else tuples.
    """
    try:
        if text.startswith("["):
            version, root = json.loads(text)
            return _from_json(root, 0) if version == 1 else None
        structure, end = _from_short(text, 0, 0)
        return structure if end == len(text) else None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def _from_json(node: dict[str, Any], depth: int) -> Structure:
    if depth > MAX_DEPTH:
        raise ValueError
    if node["type"] is None:
        return LEAF
    children = tuple(_from_json(child, depth + 1) for child in node["children_spec"])
    context = json.loads(node["context"])
    kind = _KINDS.get(node["type"])
    if kind is None:
        kind = "dict" if _are_keys(context, children) else "tuple"
    if kind not in ("dict", "ordered_dict"):
        return Structure(kind, children)
    if not _are_keys(context, children):
        raise ValueError
    return Structure(kind, children, tuple(context))


def _are_keys(context: Any, children: tuple[Structure, ...]) -> bool:
    return (
        isinstance(context, list)
        and len(context) == len(children) == len(set(map(repr, context)))
        and all(type(key) in (str, int) for key in context)
    )


_SHORT_KINDS = {"T": "tuple", "N": "tuple", "L": "list", "D": "dict"}
_SHORT_HEAD = re.compile(r"([TNLD])(\d+)((?:#\d+)*)\(")
_SHORT_KEY = re.compile(r"(?:'([^']*)'|(-?\d+)):")


def _from_short(text: str, start: int, depth: int) -> tuple[Structure, int]:
    """The structure that begins at ``start``, and where it ends."""
    if text[start] == "$":
        return LEAF, start + 1
    head = _SHORT_HEAD.match(text, start)
    if head is None or depth > MAX_DEPTH:
        raise ValueError
    kind = _SHORT_KINDS[head[1]]
    children: list[Structure] = []
    keys: list[Key] = []
    position = head.end()
    while text[position] != ")":
        if children:
            if text[position] != ",":
                raise ValueError
            position += 1
        if kind == "dict":
            key = _SHORT_KEY.match(text, position)
            if key is None:
                raise ValueError
            keys.append(key[1] if key[2] is None else int(key[2]))
            position = key.end()
        child, position = _from_short(text, position, depth + 1)
        children.append(child)
    if len(children) != int(head[2]) or len(set(keys)) != len(keys):
        raise ValueError
    return Structure(kind, tuple(children), tuple(keys)), position + 1


def fold(structure: Structure | None, flat: Sequence[Any]) -> Any:
    """The containers with ``flat`` as leaves. A structure that is not known, or that has another
    number of leaves, gives the flat tuple."""
    if structure is None or structure.leaves != len(flat):
        return tuple(flat)
    return _fold(structure, iter(flat))


def _fold(structure: Structure, leaves: Iterator[Any]) -> Any:
    if structure.kind == "leaf":
        return next(leaves)
    children = [_fold(child, leaves) for child in structure.children]
    if structure.kind == "tuple":
        return tuple(children)
    if structure.kind == "list":
        return children
    pairs = zip(structure.keys, children, strict=True)
    return dict(pairs) if structure.kind == "dict" else OrderedDict(pairs)


def flatten(structure: Structure, value: Any, what: str = "the input") -> list[Any]:
    """The leaves of ``value``, which has to have the structure. Tuples and lists may stand for
    each other, dicts may have their keys in any order.

    Raises:
        InputError: it has not; says where and what was expected.
    """
    leaves: list[Any] = []
    _flatten(structure, value, what, leaves)
    return leaves


def _flatten(structure: Structure, value: Any, what: str, leaves: list[Any]) -> None:
    if structure.kind == "leaf":
        leaves.append(value)
        return
    count = len(structure.children)
    if structure.kind in ("tuple", "list"):
        if not isinstance(value, (tuple, list)) or len(value) != count:
            raise InputError(
                f"{what} must be a {structure.kind} of {count}, not {_describe(value)}"
            )
        items = [(f"{what}[{i}]", item) for i, item in enumerate(value)]
    else:
        if not isinstance(value, Mapping) or set(value) != set(structure.keys):
            keys = ", ".join(map(repr, structure.keys))
            raise InputError(f"{what} must be a dict with the keys {keys}, not {_describe(value)}")
        items = [(f"{what}[{key!r}]", value[key]) for key in structure.keys]
    for child, (name, item) in zip(structure.children, items, strict=True):
        _flatten(child, item, name, leaves)


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"one with the keys {', '.join(map(repr, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"

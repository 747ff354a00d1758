"""How a method is called: the model's own structure to and from flat lists of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.errors import InputError
from penstock.formats import structure as structures
from penstock.formats.program import Method
from penstock.formats.structure import LEAF, Structure


class Signature:
    """The structure of a method's inputs and outputs, as far as the program says it."""

    def __init__(self, method: Method, written: int = 0) -> None:
        """``written``: how many of the first outputs may be inputs that the method writes to,
        which are no part of what the model returns."""
        count = len(method.inputs)
        found = structures.decode(method.input_structure)
        if found is None or not _is_call(found) or found.leaves != count:
            found = Structure("tuple", (Structure("tuple", (LEAF,) * count), Structure("dict")))
        self._name = method.name
        self._positional, self._keywords = found.children
        self._outputs = structures.decode(method.output_structure)
        #: whether the outputs come as a flat tuple
        self._flat = self._outputs is None or self._outputs == LEAF
        returned = len(method.outputs) if self._outputs is None else self._outputs.leaves
        #: the outputs before those that the model returns
        self._extra = max(0, min(written, len(method.outputs) - returned))
        plain = all(child == LEAF for child in self._positional.children)
        #: the number of arguments if all are plain positional ones, else -1
        self._plain = count if plain and not self._keywords.children else -1
        self._count = count

    def takes(self, name: str) -> bool:
        """Whether the model has a keyword input of that name."""
        return name in self._keywords.keys

    @property
    def labels(self) -> list[str]:
        """A name for each flat input, for error messages: ``input 0['a']``, ``input 'mask'``."""
        named = [(f"input {i}", one) for i, one in enumerate(self._positional.children)]
        pairs = zip(self._keywords.keys, self._keywords.children, strict=True)
        named += [(f"input {key!r}", one) for key, one in pairs]
        return [label for name, one in named for label in _labels(name, one)]

    @property
    def names(self) -> list[str]:
        """A name for each flat input, as of a column: a keyword input's own, else ``input_N``."""
        found = [f"input_{i}" for i in range(self._count)]
        position = sum(child.leaves for child in self._positional.children)
        for key, child in zip(self._keywords.keys, self._keywords.children, strict=True):
            if child == LEAF:
                found[position] = str(key)
            position += child.leaves
        return found

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """The inputs as a flat list. Keyword inputs may come by position, too, after the others;
        nested inputs may come flat.

        Raises InputError if the arguments do not have the structure of the inputs.
        """
        if not kwargs and len(args) == self._plain:
            return args
        positional, keywords = self._positional.children, self._keywords
        named = dict(zip(keywords.keys, args[len(positional) :], strict=False))
        unknown = [key for key in kwargs if key not in keywords.keys or key in named]
        given: dict[Any, Any] = {**named, **kwargs}
        if len(args) <= len(positional) + len(named) and not unknown:
            if len(args) >= len(positional) and len(given) == len(keywords.keys):
                leaves: list[Any] = []
                for index, (child, value) in enumerate(zip(positional, args, strict=False)):
                    leaves += structures.flatten(child, value, f"input {index}")
                for key, child in zip(keywords.keys, keywords.children, strict=True):
                    leaves += structures.flatten(child, given[key], f"input {key!r}")
                return leaves
        elif not kwargs and len(args) == self._count:
            return args
        hint = "" if keywords.keys or not kwargs else "; give inputs by position"
        raise InputError(f"{self._expected()}; {_given(args, kwargs)}{hint}")

    def _expected(self) -> str:
        count = len(self._positional.children)
        text = f"the method {self._name!r} takes {count} input{'' if count == 1 else 's'}"
        if self._keywords.keys:
            text += f" and the keyword inputs {', '.join(map(repr, self._keywords.keys))}"
        return text

    def fold(self, outputs: list[Any]) -> Any:
        """The outputs in the model's own structure; a lone tensor as a tuple of one."""
        if self._extra:
            outputs = outputs[self._extra :]
        if self._flat:
            return tuple(outputs)
        assert self._outputs is not None
        return structures.fold(self._outputs, outputs)


def _is_call(structure: Structure) -> bool:
    """Whether it is that of (args, kwargs)."""
    return (
        structure.kind == "tuple"
        and len(structure.children) == 2
        and structure.children[0].kind in ("tuple", "list")
        and structure.children[1].kind in ("dict", "ordered_dict")
    )


def _given(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    text = f"{len(args)} {'was' if len(args) == 1 else 'were'} given"
    return f"{text}, and {', '.join(map(repr, kwargs))}" if kwargs else text


def _labels(name: str, structure: Structure) -> list[str]:
    if structure == LEAF:
        return [name]
    keys = structure.keys or range(len(structure.children))
    pairs = zip(keys, structure.children, strict=True)
    return [label for key, child in pairs for label in _labels(f"{name}[{key!r}]", child)]

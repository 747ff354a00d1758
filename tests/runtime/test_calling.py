"""Nested and keyword inputs and outputs."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InputError
from penstock.formats.program import Method
from penstock.formats.structure import encode, structure_of
from penstock.runtime.calling import Signature


def signature(args: Any, kwargs: Any, outputs: Any) -> Signature:
    def leaves(value: Any) -> int:
        return structure_of(value).leaves

    return Signature(
        Method(
            "forward",
            [],
            list(range(leaves((args, kwargs)))),
            list(range(leaves(outputs))),
            [],
            input_structure=encode(structure_of((args, kwargs))),
            output_structure=encode(structure_of(outputs)),
        )
    )


def test_plain() -> None:
    plain = signature((0, 0), {}, 0)
    args = (1, 2)
    assert plain.flatten(args, {}) is args
    assert plain.labels == ["input 0", "input 1"]
    assert plain.fold([5]) == (5,)
    for wrong, kwargs in (((1,), {}), ((1, 2, 3), {}), ((1, 2), {"x": 3}), ((1,), {"x": 2})):
        with pytest.raises(InputError, match="'forward' takes 2 inputs; . w.* given"):
            plain.flatten(wrong, kwargs)


def test_nested_and_keyword_inputs() -> None:
    nested = signature(({"a": 0, "b": [0, 0]}, 0), {"mask": 0, "more": (0,)}, 0)
    assert nested.labels == [
        "input 0['a']",
        "input 0['b'][0]",
        "input 0['b'][1]",
        "input 1",
        "input 'mask'",
        "input 'more'[0]",
    ]
    tree = {"b": [2, 3], "a": 1}
    expected = [1, 2, 3, 4, 5, 6]
    assert nested.flatten((tree, 4), {"more": (6,), "mask": 5}) == expected
    assert nested.flatten((tree, 4, 5), {"more": [6]}) == expected
    assert nested.flatten((tree, 4, 5, (6,)), {}) == expected
    assert list(nested.flatten((1, 2, 3, 4, 5, 6), {})) == expected
    for args, kwargs, message in (
        ((tree,), {}, "takes 2 inputs and the keyword inputs 'mask', 'more'; 1 was given"),
        ((tree, 4), {"mask": 5}, "2 were given, and 'mask'"),
        ((tree, 4, 5), {"mask": 5, "more": (6,)}, "3 were given"),
        ((tree, 4), {"mask": 5, "more": (6,), "x": 7}, "'x'"),
        (({"a": 1}, 4), {"mask": 5, "more": (6,)}, "input 0 must be a dict with the keys"),
        ((tree, 4), {"mask": 5, "more": (6, 7)}, "input 'more' must be a tuple of 1"),
    ):
        with pytest.raises(InputError, match=message):
            nested.flatten(args, kwargs)


def test_outputs_in_their_structure() -> None:
    outputs = {"y": [0, (0,)], "z": 0}
    assert signature((), {}, outputs).fold([1, 2, 3]) == {"y": [1, (2,)], "z": 3}
    assert signature((), {}, [0]).fold([1]) == [1]
    assert signature((), {}, (0,)).fold([1]) == (1,)


def test_unknown_structures_are_flat() -> None:
    for text in ("", "nonsense", encode(structure_of((0,)))):
        unknown = Signature(
            Method("forward", [], [0, 1], [2, 3], [], input_structure=text, output_structure=text)
        )
        assert unknown.flatten((1, 2), {}) == (1, 2)
        assert unknown.fold([3, 4]) == (3, 4)
        with pytest.raises(InputError):
            unknown.flatten((1,), {})

"""Nested inputs and outputs, against PyTorch's own pytree."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch.utils._pytree as pytree
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import InputError
from penstock.formats import structure

LEAVES = st.integers(0, 9)
KEYS = st.text(max_size=5) | st.integers(-9, 99)
TREES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(KEYS, children, max_size=3),
        st.dictionaries(KEYS, children, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(TREES)
def test_says_and_does_what_pytorch_says_and_does(tree: Any) -> None:
    leaves, spec = pytree.tree_flatten(tree)
    text = pytree.treespec_dumps(spec)
    read = structure.decode(text)
    assert read is not None
    assert read == structure.structure_of(tree)
    assert structure.encode(read) == text
    assert read.leaves == len(leaves)
    assert structure.flatten(read, tree) == leaves
    folded = structure.fold(read, leaves)
    assert folded == tree
    assert pytree.tree_structure(folded) == spec


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("$", 1),
        ("T0()", ()),
        ("T2#1#2($,D2#1#1('a':$,7:$))", (1, {"a": 2, 7: 3})),
        ("L3#1#0#1($,T0(),N1#1($))", [1, (), (2,)]),
        ("D1#2('it, is(':L2#1#1($,$))", {"it, is(": [1, 2]}),
    ],
)
def test_short_notation(text: str, folded: Any) -> None:
    read = structure.decode(text)
    assert read is not None
    assert structure.fold(read, range(1, read.leaves + 1)) == folded


def test_other_containers_become_dicts_or_tuples() -> None:
    child = '{"type": null, "context": null, "children_spec": []}'
    for context, expected in (('"[\\"a\\"]"', {"a": 5}), ('"null"', (5,)), ('"\\"Point\\""', (5,))):
        text = f'[1, {{"type": "x.Y", "context": {context}, "children_spec": [{child}]}}]'
        assert structure.fold(structure.decode(text), [5]) == expected


@pytest.mark.parametrize(
    "text",
    ["", "T", "T1($", "T2($)", "T1($)x", "D1($)", "D2('a':$,'a':$)", "X1($)", "[", "[2, 3]", "[1]",
     "[1, {}]", "[1, null]", "T1#1(" * 4000 + "$" + ")" * 4000, "[1, " + "[" * 100000,
     '[1, {"type": "builtins.dict", "context": "[]", "children_spec": [{"type": null}]}]'],
)  # fmt: skip
def test_unreadable_text_gives_the_flat_tuple(text: str) -> None:
    assert structure.decode(text) is None
    assert structure.fold(structure.decode(text), [1, 2]) == (1, 2)


def test_another_number_of_values_gives_the_flat_tuple() -> None:
    assert structure.fold(structure.structure_of([1, 2]), [1, 2, 3]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1,), r"the input must be a tuple of 2, not a tuple of 1"),
        (3, r"the input must be a tuple of 2, not a int"),
        (
            ((1, 2), {"b": 3}),
            r"the input\[1\] must be a dict with the keys 'a', not one with .*'b'",
        ),
        (((1, 2, 3), {"a": 3}), r"the input\[0\] must be a list of 2, not a tuple of 3"),
    ],
)
def test_input_of_another_structure(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        structure.flatten(structure.structure_of(([1, 2], {"a": 3})), value)


def test_keys_that_files_cannot_hold() -> None:
    with pytest.raises(InputError, match=r"the key \(1, 2\)"):
        structure.structure_of({(1, 2): 3})

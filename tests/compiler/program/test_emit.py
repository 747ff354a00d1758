"""Whole programs against eager PyTorch and on the stock runtime: operators outside a delegate,
inputs and outputs of all kinds, state, dynamic shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import complex_cases
import control_cases
import dynamic_cases
import emit_cases
import pytest
import several_dynamic_cases
import sorting_cases
import structure_cases
from emit_harness import Case, Result, compare, compile_and_run, run_stock, stock_outputs
from torch.utils import _pytree as pytree

from penstock.formats import program as pte
from penstock.formats.kernel_names import stock_kernels

CASES = [
    *emit_cases.CASES, *structure_cases.CASES, *dynamic_cases.CASES,
    *several_dynamic_cases.CASES, *control_cases.SOME, *sorting_cases.CASES,
    *complex_cases.CASES,
]  # fmt: skip


PARAMETERS = [
    pytest.param(case, marks=pytest.mark.sweep if case.sweep else (), id=case.name)
    for case in CASES
]


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result | Exception]:
    """Every case that is asked for, compiled and run everywhere; the stock runtime once for all."""
    directory = tmp_path_factory.mktemp("programs")
    asked = [
        item.callspec.params.get("case")
        for item in request.session.items
        if hasattr(item, "callspec")
    ]
    wanted = {case.name for case in asked if isinstance(case, Case)}
    found: dict[str, Result | Exception] = {}
    chosen = [case for case in CASES if case.name in wanted]
    for case in chosen:
        try:
            found[case.name] = compile_and_run(case, directory)
        except Exception as error:
            found[case.name] = error
    run_stock(directory)
    for case in chosen:
        result = found[case.name]
        if isinstance(result, Result):
            result.stock = stock_outputs(case, directory)
    return found


def _result(results: dict[str, Any], case: Case) -> Result:
    result = results[case.name]
    if isinstance(result, Exception):
        raise result
    return result


def plain(tree: Any) -> Any:
    """Named tuples as tuples, dataclasses as dicts, a lone tensor in a tuple: what files hold."""
    if hasattr(tree, "__dataclass_fields__"):
        return {name: getattr(tree, name) for name in tree.__dataclass_fields__}
    if isinstance(tree, tuple):
        return tuple(tree)
    return tree if isinstance(tree, (list, dict)) else (tree,)


@pytest.mark.parametrize("case", PARAMETERS)
def test_ours(results: dict[str, Any], case: Case) -> None:
    """Ours gives eager's answers in eager's structure."""
    result = _result(results, case)
    if case.pieces is not None:
        undelegated = result.lowered.delegation.undelegated
        assert len(result.lowered.delegation.subgraphs) == case.pieces, undelegated
    for ours, eager in zip(result.ours, map(plain, result.eager), strict=True):
        assert pytree.tree_structure(ours) == pytree.tree_structure(eager)
        compare(pytree.tree_leaves(ours), pytree.tree_leaves(eager), case.tolerance)


@pytest.mark.parametrize("case", PARAMETERS)
def test_stock(results: dict[str, Any], case: Case) -> None:
    """The stock runtime runs the same file to the same answers."""
    result = _result(results, case)
    kernels = {str(operator) for operator in result.lowered.program.methods[0].operators}
    assert kernels <= stock_kernels()
    if case.stock:
        assert not isinstance(result.stock, str), result.stock
        for stock, eager in zip(result.stock, map(plain, result.eager), strict=True):
            compare(stock, pytree.tree_leaves(eager), case.tolerance)


def named(*, end: str = "", start: str = "") -> list[Any]:
    """The parameters for the cases of these names, of which there are some."""
    found = [one for one in PARAMETERS if one.id.endswith(end) and one.id.startswith(start)]
    assert found, f"no case is called {start}...{end}"
    return found


@pytest.mark.parametrize("case", named(end="_kernels"))
def test_nothing_delegated(results: dict[str, Any], case: Case) -> None:
    assert not _result(results, case).lowered.program.methods[0].delegates


@pytest.mark.parametrize("case", named(start="shared_weights"))
def test_shared_weights_are_written_once(results: dict[str, Any], case: Case) -> None:
    assert len(_result(results, case).lowered.to_bytes()) < 2 * 64 * 64 * 4


def test_weights_are_transposed_when_compiled(tmp_path: Path) -> None:
    """Constants do not change at run time, so nothing is computed of them then."""
    (case,) = (case for case in emit_cases.CASES if case.name == "attention_kernels")
    method = compile_and_run(case, tmp_path).lowered.program.methods[0]
    constant = {
        index
        for index, value in enumerate(method.values)
        if isinstance(value, pte.Tensor) and value.data is not None
    }
    moves = {"aten::permute_copy", "aten::t_copy", "aten::transpose_copy"}
    for call in method.instructions:
        if isinstance(call, pte.KernelCall) and method.operators[call.operator].name in moves:
            assert call.args[0] not in constant

"""All kinds of branches and loops, with delegates and on kernels alone, against eager PyTorch and
on the stock runtime. A part of them is among the programs of ``tests/compiler/program``."""

from __future__ import annotations

from pathlib import Path

import control_cases
import pytest
from emit_harness import compare, compile_and_run, run_stock, stock_outputs
from torch.utils import _pytree as pytree


@pytest.mark.sweep
def test_branches_and_loops(tmp_path: Path) -> None:
    failed: list[str] = []
    results = {}
    for case in control_cases.CASES:
        try:
            results[case.name] = result = compile_and_run(case, tmp_path)
            for ours, eager in zip(result.ours, result.eager, strict=True):
                compare(pytree.tree_leaves(ours), pytree.tree_leaves(eager), case.tolerance)
        except Exception as error:
            failed.append(f"{case.name}: {type(error).__name__}: {error}")
    run_stock(tmp_path)
    for case in control_cases.CASES:
        if case.name not in results:
            continue
        found = stock_outputs(case, tmp_path)
        try:
            assert not isinstance(found, str), found
            for stock, eager in zip(found, results[case.name].eager, strict=True):
                compare(stock, pytree.tree_leaves(eager), case.tolerance)
        except AssertionError as error:
            failed.append(f"{case.name} on the stock runtime: {error}")
    assert not failed, "\n".join(failed)
    assert len(results) == len(control_cases.CASES) > 70

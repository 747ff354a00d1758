"""Every operator entry against eager PyTorch."""

from __future__ import annotations

import pytest
import shape_cases  # noqa: F401  registers its cases
import window_cases  # noqa: F401
from operator_cases import CASES, Case
from operator_harness import as_module, captured_graph, check

from penstock.compiler.delegate.operators import registry

#: Tested with quantization, below and in tests/compiler/quantize.
QUANTIZED = {
    "quantize_per_tensor", "dequantize_per_tensor", "dequantize_per_channel",
    "dequantize_per_channel_group", "choose_qparams",
    "quantize_per_tensor (dynamic)", "dequantize_per_tensor (dynamic)",
    *(f"{name}{kind} (dynamic)" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
      for kind in ("", "_cell")),
}  # fmt: skip


def test_every_entry_has_a_case() -> None:
    names = {entry.name for entry in registry.entries()}
    assert names - {case.entry for case in CASES} - QUANTIZED == set()


def test_names_are_unique() -> None:
    names = [entry.name for entry in registry.entries()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.entry}" for i, case in enumerate(CASES)])
def test_entry(case: Case) -> None:
    module = as_module(case.function)
    graph = captured_graph(module, case.inputs).module.graph
    entries = {
        found.name
        for node in graph.nodes
        if node.op == "call_function" and (found := registry.find(node.target)) is not None
    }
    assert case.entry in entries, f"the program has {entries}"
    check(module, *case.inputs, tolerance=case.tolerance)

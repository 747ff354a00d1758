"""A family of our own kernels that computes wrongly is found when the library is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock.errors import BackendUnavailableError
from penstock.graph.graph import XnnGraph
from penstock.runtime.engines import named
from penstock.runtime.engines.native import library as libraries
from penstock.runtime.engines.native.engine import (
    NativeEngine,
    NativeExecutable,
    check_library,
    checked_library,
)
from penstock.runtime.engines.processor import processor
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.kernel_families import families, those_of

if (reason := libraries.reason_against()) is not None:
    pytest.skip(reason, allow_module_level=True)

STOCK = Path(__file__).parents[3] / "formats" / "stock"


def covered() -> list[str]:
    """The families of which the self-test has a product here."""
    every = families(convert=False)
    engine = NativeEngine(everything=True, library=libraries.shared_library())
    left = those_of(every, lambda node: engine.reason_against(every.graph, node) is None)
    return [name for name, _, _ in left.expected]


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    checked_library.cache_clear()
    yield
    checked_library.cache_clear()


def spoil(monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    """Make the product at ``position`` wrong in one element, in graphs with as many products."""
    compile, products = NativeEngine.compile, len(covered())

    class Broken:
        def __init__(self, executable: NativeExecutable) -> None:
            self._executable = executable

        def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
            self._executable.run(inputs, outputs)
            if len(outputs) == products:
                outputs[position].flat[7] += 30

    def broken(self: NativeEngine, graph: XnnGraph, *, threads: Threads) -> Broken:
        return Broken(compile(self, graph, threads=threads))

    monkeypatch.setattr(NativeEngine, "compile", broken)


def test_what_our_kernels_compute_is_tested() -> None:
    assert {"fp32 fully connected", "fp32 depthwise", "fp32 3x3 convolution", "int8 convolution",
            "int8 depthwise", "dynamic int8"} <= set(covered())  # fmt: skip


@pytest.mark.parametrize("family", covered())
def test_what_is_wrong_is_named(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, covered().index(family))
    with pytest.raises(BackendUnavailableError) as caught:
        NativeEngine()
    message = str(caught.value)
    assert processor() in message and f": {family} (off by" in message
    assert "PENSTOCK_ISA=scalar" in message and 'engine="xnnpack"' in message
    assert message.count("(off by") == 1 and "\n" not in message


def test_programs_run_without_them_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(STOCK / "image_fp32.npz") as file:
        image = file["forward|0|in0"]
    expected = penstock.load(STOCK / "image_fp32.pte", engine="xnnpack")(image)[0]
    spoil(monkeypatch, 0)
    with pytest.warns(RuntimeWarning, match="compute wrongly.*XNNPACK does their work"):
        answer = penstock.load(STOCK / "image_fp32.pte")(image)[0]
    np.testing.assert_array_equal(answer, expected)
    with pytest.raises(BackendUnavailableError, match="compute wrongly"):
        named.engines_named("native")


@pytest.mark.parametrize("highest", libraries.shared_library().detected.names)
def test_each_instruction_set_is_right(highest: str) -> None:
    library = libraries.shared_library()
    check_library(libraries.open_library(library.path, highest))


def test_self_tests_are_small() -> None:
    """Milliseconds of a start, which ``benchmarks.run start`` measures: each family has one node of
    a few thousand elements."""
    graph = families(convert=False).graph
    assert len(graph.nodes) <= 16
    assert all(prod(value.shape) <= 10_000 for value in graph.values)

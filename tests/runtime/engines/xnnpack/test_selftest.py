"""A family of kernels that computes wrongly is found when the library is loaded, and named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from penstock.errors import BackendUnavailableError
from penstock.graph.graph import XnnGraph
from penstock.runtime.engines.processor import processor
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine, check_library
from penstock.runtime.engines.xnnpack.executable import XnnpackExecutable
from penstock.runtime.engines.xnnpack.kernel_families import families
from penstock.runtime.engines.xnnpack.library import shared

NAMES = [name for name, _, _ in families().expected]


def test_each_family_is_there() -> None:
    kinds = {name.split()[0] for name in NAMES}
    assert kinds == {"fp32", "int8", "dynamic"} and len(set(NAMES)) == 9
    for part in ("fully connected", "batched", "depthwise", "convolution", "int4"):
        assert any(part in name for name in NAMES)


def test_this_machine_is_right() -> None:
    check_library(shared())


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("wrong", ["zeros", "one element", "a column", "NaN"])
def test_what_is_wrong_is_named(family: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compile = XnnpackEngine.compile
    position = NAMES.index(family)

    class Broken:
        def __init__(self, executable: XnnpackExecutable) -> None:
            self._executable = executable

        def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
            self._executable.run(inputs, outputs)
            if len(outputs) < len(NAMES):
                return
            output = outputs[position]
            if wrong == "zeros":
                output[...] = 0
            elif wrong == "one element":
                output.flat[output.size // 2] += 30
            elif wrong == "a column":
                output[..., -1] = output[..., 0]
            else:
                output.flat[3] = np.nan if output.dtype.kind == "f" else 127

    def broken(self: XnnpackEngine, graph: XnnGraph, *, threads: Threads) -> Broken:
        return Broken(compile(self, graph, threads=threads))

    monkeypatch.setattr(XnnpackEngine, "compile", broken)
    with pytest.raises(BackendUnavailableError) as caught:
        check_library(shared())
    message = str(caught.value)
    assert f"{processor()}: {family} (off by" in message and "PENSTOCK_XNNPACK_LIBRARY" in message
    assert message.count("(off by") == 1 and "\n" not in message

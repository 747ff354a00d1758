"""The memory of packed weights, and the file's pages that go when a weight is packed."""

from __future__ import annotations

import gc
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.blocks import ALIGNMENT, address
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.weight_blocks import WeightBlocks
from penstock.runtime.engines.xnnpack.bindings import LookUpKey
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine
from penstock.runtime.engines.xnnpack.packing import PackedWeights
from penstock.runtime.mapped import MappedFile, drop


def products(widths: list[int], weights: list[np.ndarray]) -> XnnGraph:
    """One product after the other."""
    graph = XnnGraph(values=[Value(0, DataType.FP32, (2, widths[0]), is_input=True)], inputs=[0])
    last = 0
    for width, data in zip(widths[1:], weights, strict=True):
        weight = Value(len(graph.values), DataType.FP32, data.shape, data=data)
        output = Value(weight.id + 1, DataType.FP32, (2, width))
        graph.values += [weight, output]
        inputs = (last, weight.id, 0xFFFFFFFF)
        graph.nodes.append(Node(NodeKind.FULLY_CONNECTED, inputs, (output.id,)))
        last = output.id
    graph.values[last].is_output = True
    graph.outputs = [last]
    for position, id in enumerate((0, last)):
        graph.values[id].external_id = position
    return graph


def test_weights_of_all_sizes() -> None:
    widths = [3, 1, 700, 900, 2, 64]
    generator = np.random.default_rng(0)
    weights = [
        generator.standard_normal((b, a)).astype(np.float32)
        for a, b in zip(widths, widths[1:], strict=False)
    ]
    executable = XnnpackEngine().compile(products(widths, weights), threads=Threads(1))
    for weight in weights:
        weight[...] = np.nan  # XNNPACK has its own copy
    x = generator.standard_normal((2, 3)).astype(np.float32)
    expected = x
    generator = np.random.default_rng(0)
    for a, b in zip(widths, widths[1:], strict=False):
        expected = expected @ generator.standard_normal((b, a)).astype(np.float32).T
    y = np.empty((2, 64), np.float32)
    gc.collect()
    executable.run([x], [y])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())


def test_places_do_not_overlap() -> None:
    packed = PackedWeights([np.empty(40 << 20, np.uint8)], WeightBlocks())
    provider = packed._provider
    taken: list[tuple[int, int]] = []
    for size in [1, 64, 100, 5 << 20, 70 << 20, 3, 30 << 20, 1000]:
        start = provider.reserve_space(None, size)
        assert start % ALIGNMENT == 0
        assert provider.look_up_or_insert(None, key(), start, size) == start
        assert all(start >= end or start + size <= begin for begin, end in taken)
        taken.append((start, start + size))
    assert not provider.is_finalized(provider.context)
    packed.finish()
    assert provider.is_finalized(provider.context)


def key() -> object:
    """The key of a weight that is not ours."""
    return LookUpKey()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_dropped_pages_come_back(tmp_path: Path) -> None:
    content = np.arange(1 << 20, dtype=np.uint8)
    path = tmp_path / "data"
    path.write_bytes(content.tobytes())
    with path.open("rb") as file:
        mapping = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
    whole = np.frombuffer(memoryview(mapping), np.uint8)
    part = whole[5000:900_000]
    assert part.sum() == content[5000:900_000].sum()
    before = resident(address(whole))
    drop(part)
    assert resident(address(whole)) < before
    np.testing.assert_array_equal(whole, content)


def test_memory_of_others_is_left_alone() -> None:
    mapping = mmap.mmap(-1, 1 << 20)
    mapping[:] = b"x" * (1 << 20)
    drop(np.frombuffer(mapping, np.uint8))
    drop(np.ones(1 << 20, np.uint8))
    assert mapping[:] == b"x" * (1 << 20)


def resident(address: int) -> int:
    """KiB of the mapping at ``address`` that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            return next(int(item.split()[1]) for item in lines if item.startswith("Rss:"))
    raise AssertionError("no such mapping")


def test_a_kernel_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    packed = PackedWeights([np.empty(40 << 20, np.uint8)], WeightBlocks())
    assert packed._provider.reserve_space(None, 5 << 20)

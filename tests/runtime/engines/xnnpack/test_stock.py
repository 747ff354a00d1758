"""The stock runtime and ours give the same bits for the same payload, whatever nodes it holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xnn_samples
from xnn_graphs import run

from penstock.formats.payload_writer import write_payload
from penstock.formats.program import (
    Allocation,
    Buffer,
    Delegate,
    DelegateCall,
    Method,
    Program,
    ScalarType,
    Tensor,
)
from penstock.formats.program_writer import write_program
from penstock.graph.dtypes import DataType
from penstock.graph.graph import XnnGraph
from penstock.runtime.engines.xnnpack.define import DEFINE

SCALAR = {
    DataType.FP32: ScalarType.FLOAT,
    DataType.FP16: ScalarType.HALF,
    DataType.INT32: ScalarType.INT,
    DataType.QINT8: ScalarType.CHAR,
    DataType.QUINT8: ScalarType.BYTE,
}
#: Runs every program of a folder: NAME.pte with the inputs NAME.in.npz gives NAME.out.npz.
STOCK = """
import pathlib, sys
import numpy as np, torch
from executorch.runtime import Runtime
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pte")):
    inputs = np.load(path.with_suffix(".in.npz"))
    tensors = [torch.from_numpy(inputs[f"arr_{i}"]) for i in range(len(inputs.files))]
    method = Runtime.get().load_program(path).load_method("forward")
    np.savez(path.with_suffix(".out.npz"), *[o.numpy() for o in method.execute(tensors)])
"""


def program_of(graph: XnnGraph) -> bytes:
    """A program that is one delegate, its inputs and its outputs."""
    values = {v.id: v for v in graph.values}
    tensors, offset = [], 0
    for i in (*graph.inputs, *graph.outputs):
        value = values[i]
        tensors.append(Tensor(SCALAR[value.dtype], value.shape, allocation=Allocation(1, offset)))
        size = int(np.prod(value.shape)) * value.dtype.traits.array.itemsize
        offset += -(-(size + 16) // 64) * 64
    named: dict[str, Buffer] = {}
    payload = write_payload(graph, named)
    ports = list(range(len(tensors)))
    method = Method(
        "forward",
        list(tensors),
        ports[: len(graph.inputs)],
        ports[len(graph.inputs) :],
        [DelegateCall(0, tuple(ports))],
        delegates=[Delegate("XnnpackBackend", payload)],
        memory_sizes=[0, offset],
    )
    return write_program(Program([method], named))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """What the stock runtime answers, by the name of the sample."""
    folder: Path = tmp_path_factory.mktemp("stock")
    for name, (graph, inputs) in xnn_samples.SAMPLES.items():
        (folder / f"{name}.pte").write_bytes(program_of(graph))
        np.savez(folder / f"{name}.in.npz", *inputs)
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for name in xnn_samples.SAMPLES:
        archive = np.load(folder / f"{name}.out.npz")
        found[name] = [archive[f"arr_{i}"] for i in range(len(archive.files))]
    return found


def test_every_kind_is_among_the_samples() -> None:
    kinds = {n.kind for graph, _ in xnn_samples.SAMPLES.values() for n in graph.nodes}
    assert kinds == set(DEFINE)


@pytest.mark.parametrize("name", xnn_samples.SAMPLES)
def test_same_bits(name: str, outputs: dict[str, list[np.ndarray]]) -> None:
    graph, inputs = xnn_samples.SAMPLES[name]
    ours = run(graph, *inputs, threads=2)
    assert len(ours) == len(outputs[name])
    for mine, theirs in zip(ours, outputs[name], strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()

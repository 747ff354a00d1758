"""Programs of the stock flow give on ours what they give on the stock runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.runtime import ScalarSpec, TensorSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("executorch")
    directory = tmp_path_factory.mktemp("stock")
    script = Path(__file__).with_name("stock_models.py")
    done = subprocess.run(
        [sys.executable, str(script), str(directory)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


def runs(directory: Path, name: str) -> list[tuple[str, list[Any], list[Any]]]:
    """(method, inputs, outputs of the stock runtime) of each run."""
    record = np.load(directory / f"{name}.npz")
    keys = {tuple(key.rsplit("-", 1)[0].rsplit("-", 1)) for key in record.files}
    found = []
    for method, number in sorted(keys, key=lambda key: int(key[1])):
        prefix = f"{method}-{number}-"
        sides: list[list[Any]] = [[], []]
        for side, values in zip(("in", "out"), sides, strict=True):
            while (key := f"{prefix}{side}{len(values)}") in record.files:
                values.append(record[key])
        found.append((method, sides[0], sides[1]))
    return found


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("dynamic", True),
        ("dynamic_undelegated", False),
        ("partly", False),
        ("mutable", True),
        ("mutable_initialized", False),
        ("cond", True),
        ("mapped", True),
        ("scanned", True),
        ("writer", True),
        ("nested", True),
        ("nested_dim_order", True),
        ("pool", True),
        ("channels_last", False),
        ("average_pool", True),
        ("number", True),
        ("numbers", True),
        ("dynamic_convolutions", True),
        ("two_methods", True),
        ("spectrum", False),
        ("complex_filter", False),
    ],
)
def test_same_answers(stock: Path, name: str, exact: bool) -> None:
    """``exact``: nothing is computed outside XNNPACK that could round in another way."""
    program = penstock.load(stock / f"{name}.pte", threads=1, engine="xnnpack")
    for method, inputs, expected in runs(stock, name):
        outputs = program.method(method).run(inputs)
        assert len(outputs) == len(expected)
        for got, wanted in zip(outputs, expected, strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            if exact:
                np.testing.assert_array_equal(got, wanted)
            else:
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_structures(stock: Path) -> None:
    _, (x,), flat = runs(stock, "partly")[0]
    outputs = penstock.load(stock / "partly.pte")(x)
    assert list(outputs) == ["y", "sorted"] and isinstance(outputs["sorted"], tuple)
    np.testing.assert_allclose(outputs["sorted"][0], flat[1], rtol=1e-5, atol=1e-6)

    program = penstock.load(stock / "nested.pte")
    _, (a, b, c, mask), flat = runs(stock, "nested")[0]
    listed, pair = program({"a": a}, (b, c), mask=mask)
    assert isinstance(listed, list) and list(listed[1]) == ["k", "b"] and isinstance(pair, tuple)
    np.testing.assert_array_equal(pair[0], flat[3])
    with pytest.raises(penstock.InputError, match="keyword inputs 'mask'"):
        program({"a": a}, (b, c))
    with pytest.raises(penstock.InputError, match=r"input 0\['a'\] has shape \(3, 2\)"):
        program({"a": a.T.copy()}, (b, c), mask=mask)


def test_specs_and_methods(stock: Path) -> None:
    program = penstock.load(str(stock / "two_methods.pte"))
    assert sorted(program.methods) == ["encode", "forward", "label", "size"]
    forward = program.method("forward")
    assert forward.inputs == [TensorSpec((3, 8), np.dtype("float32"))]
    assert forward.outputs == [TensorSpec((3, 4), np.dtype("float32"))]
    assert program.method("size")() == (8,)
    assert program.method("label").outputs == [ScalarSpec("str", "two")]
    (spec,) = penstock.load((stock / "dynamic.pte").read_bytes()).method().inputs
    assert isinstance(spec, TensorSpec) and spec.dynamic and spec.shape == (10, 16)


def test_beyond_the_bound(stock: Path) -> None:
    program = penstock.load(stock / "dynamic.pte")
    with pytest.raises(penstock.InputError, match="input 0 .* size 11 .* bound 10"):
        program(np.ones((11, 16), np.float32))
    with pytest.raises(penstock.InputError):
        program(np.ones((3, 15), np.float32))
    assert program(np.ones((2, 16), np.float32))[0].shape == (2, 8)


def test_two_loads_have_two_states(stock: Path) -> None:
    (_, (x,), (first,)), *_ = runs(stock, "mutable")
    one, two = (penstock.load(stock / "mutable.pte") for _ in range(2))
    np.testing.assert_array_equal(one(x)[0], first)
    assert not np.array_equal(one(x)[0], first)
    np.testing.assert_array_equal(two(x)[0], first)


def test_written_inputs(stock: Path) -> None:
    """The stock runtime gives them as its first outputs; ours writes them back, too."""
    (_, given, (x, step, total, doubled)), *_ = runs(stock, "writer")
    arrays = [array.copy() for array in given]
    outputs = penstock.load(stock / "writer.pte")(*arrays)
    np.testing.assert_array_equal(arrays[0], x)
    np.testing.assert_array_equal(arrays[1], step)
    np.testing.assert_array_equal(arrays[2], given[2])
    assert list(outputs) == ["sum", "y"]
    np.testing.assert_array_equal(outputs["sum"], total)
    np.testing.assert_array_equal(outputs["y"], doubled)


def test_running_imports_no_torch(stock: Path) -> None:
    code = (
        "import sys, numpy, penstock\n"
        f"penstock.load({str(stock / 'dynamic.pte')!r})(numpy.ones((2, 16), numpy.float32))\n"
        "print({m.split('.')[0] for m in sys.modules} & {'torch', 'executorch', 'ml_dtypes'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "set()"


DAMAGE = """
import random, sys
import numpy as np
import penstock
data, seed = open(sys.argv[1], "rb").read(), int(sys.argv[2])
kinds = set()
for number in range(seed, seed + 60):
    rng = random.Random(number)
    damaged = bytearray(data)
    if rng.random() < 0.2:
        del damaged[rng.randrange(len(data)):]
    for _ in range(rng.choice([1, 2, 8])):
        if damaged:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    try:
        program = penstock.load(bytes(damaged), threads=1)
        for name in program.methods:
            method = program.method(name)
            ones = [np.ones(s.shape, s.dtype) if hasattr(s, "shape") else s.value
                    for s in method.inputs]
            method.run(ones)
        kinds.add("ran")
    except penstock.PenstockError as error:
        assert "\\n" not in str(error)
        kinds.add(type(error).__name__)
print(sorted(kinds))
"""


@pytest.mark.parametrize(
    "name", ["dynamic", "partly", "mutable_initialized", "cond", "mapped", "nested"]
)
def test_damaged_files_give_errors(stock: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(stock / f"{name}.pte"), "0"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "InvalidProgramError" in done.stdout

"""What loaded programs print, and what becomes of them when they are pickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from method_harness import make, tensor

from penstock.runtime.program import LoadedProgram, load

STOCK = Path(__file__).parents[1] / "formats" / "stock"


def answers(program: LoadedProgram) -> list[np.ndarray]:
    inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
    return program.method().run(inputs)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("name", ["rows_inline", "image_q8", "mutable"])
def test_pickled_programs_begin_anew(
    name: str, as_bytes: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = STOCK / f"{name}.pte"
    monkeypatch.chdir(STOCK)
    program = load(path.read_bytes() if as_bytes else path.name, threads=1)
    first = answers(program)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(program))
    for found, expected in zip(answers(again), first, strict=True):
        np.testing.assert_array_equal(found, expected)
    if name == "mutable":
        assert not np.array_equal(answers(again)[0], first[0])


def test_data_files_are_pickled_too() -> None:
    path, data = STOCK / "external" / "kernels.pte", STOCK / "external" / "kernels.ptd"
    program = load(path, data=data, threads=1)
    again = pickle.loads(pickle.dumps(program))
    np.testing.assert_array_equal(answers(again)[0], answers(program)[0])


def test_a_program_made_in_memory_cannot_be_pickled() -> None:
    program = make([tensor(2), tensor(2)], [0], [1], [("test::same.out", 0, 1, 1)])
    with pytest.raises(pickle.PicklingError, match=r"penstock\.load"):
        pickle.dumps(program)


def test_printing() -> None:
    program = load(STOCK / "rows_inline.pte")
    assert not program._methods
    first, forward = repr(program).splitlines()
    assert not program._methods, "printing compiles nothing"
    assert first == f"LoadedProgram({STOCK / 'rows_inline.pte'})"
    method = program.method()
    takes, gives = (", ".join(map(str, specs)) for specs in (method.inputs, method.outputs))
    assert forward == f"  forward({takes}) -> ({gives})"
    assert repr(method) == f"Method forward({takes}) -> ({gives})"
    several = repr(load(STOCK / "two_methods.pte")).splitlines()[1:]
    assert [line.partition("(")[0].strip() for line in several] == [
        "encode", "forward", "size", "name"
    ]  # fmt: skip
    content = (STOCK / "rows_inline.pte").read_bytes()
    assert repr(load(content)).startswith(f"LoadedProgram({len(content):,} bytes)\n")


def test_damaged_values_are_said_and_not_raised() -> None:
    damaged = make([tensor(2), tensor(1 << 50)], [0], [1], [("test::same.out", 0, 1, 1)])
    assert repr(damaged).endswith("forward(float32[2]) -> (damaged)")

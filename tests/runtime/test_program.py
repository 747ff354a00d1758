"""What loaded programs print, and what becomes of them when they are pickled."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from method_harness import make, tensor

from penstock.errors import InputError
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


def test_contents_of_any_form() -> None:
    content = (STOCK / "rows_inline.pte").read_bytes()
    room = bytearray(2 * len(content))
    room[::2] = content
    expected = answers(load(content))
    for given in (bytearray(content), memoryview(content), memoryview(room)[::2]):
        for found in (load(given), pickle.loads(pickle.dumps(load(given)))):
            np.testing.assert_array_equal(answers(found)[0], expected[0])


@pytest.mark.parametrize("engine", [None, [], [None], 1, ("xnnpack",), "XNNPACK"])
def test_what_is_no_engine(engine: Any) -> None:
    with pytest.raises(InputError, match="^engine is .*; choose 'auto' or 'xnnpack' or 'native'"):
        load(STOCK / "rows_inline.pte", engine=engine)


def test_integers_of_numpy_are_integers() -> None:
    assert load(STOCK / "rows_inline.pte", threads=np.int64(2))._threads.count == 2  # type: ignore[arg-type]
    for wrong in (np.True_, np.float64(1), np.array([1]), "2"):
        with pytest.raises(InputError, match="number of threads is"):
            load(STOCK / "rows_inline.pte", threads=wrong)  # type: ignore[arg-type]


def test_arguments_of_other_types() -> None:
    program = load(STOCK / "rows_inline.pte")
    for name in (1, [], {}):
        with pytest.raises(InputError, match="there is no method"):
            program.method(name)  # type: ignore[arg-type]
    for inputs in (None, 1, iter(()), {}):
        with pytest.raises(InputError, match="run takes a list of inputs, not a"):
            program.method().run(inputs)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 were given, and 'x'; give inputs by position"):
        program(x=1)


def test_methods_say_why_they_cannot_be_pickled() -> None:
    with pytest.raises(pickle.PicklingError, match="pickle its program"):
        pickle.dumps(load(STOCK / "rows_inline.pte").method())


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use stays there")
def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.pte").write_bytes((STOCK / "rows_inline.pte").read_bytes())
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="the current folder was deleted; give the absolute path"):
        load("../program.pte")
    load(tmp_path / "program.pte")

"""The method core on programs made in memory: memory, shapes, inputs, errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from method_harness import ONES, make, run, tensor

from penstock.errors import InputError, InvalidProgramError, UnsupportedError
from penstock.formats.program import (
    Dynamism,
    IntList,
    JumpFalseCall,
    Method,
    Program,
    ScalarType,
)
from penstock.runtime.method_values import COPIED_OUTPUT_BYTES
from penstock.runtime.program import LoadedProgram


def test_large_outputs_are_the_callers_own() -> None:
    size = COPIED_OUTPUT_BYTES
    program = make([tensor(size), tensor(size)], [0], [1], [("test::same.out", 0, 1, 1)])
    x = np.arange(size, dtype=np.float32)
    (first,) = run(program, x)
    (second,) = run(program, x + 1)
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, x + 1)
    assert not np.shares_memory(first, x)
    assert all(value is None for value in program.method()._state.values)


def test_channels_last() -> None:
    last = (0, 2, 3, 1)
    values = [
        tensor(1, 3, 4, 5, dim_order=last, at=0),
        tensor(1, 3, 4, 5, dim_order=last, at=256),
        tensor(1, 3, 4, 5),
    ]
    program = make(
        values,
        [0],
        [1, 2],
        [("test::add.out", 0, 0, 1, 1), ("test::same.out", 1, 2, 2)],
    )
    x = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    for given in (x, x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), x[:, ::-1][:, ::-1]):
        physical, plain = run(program, given)
        np.testing.assert_array_equal(physical, x * 2)
        np.testing.assert_array_equal(plain, x * 2)
        assert physical.transpose(last).flags.c_contiguous
        assert plain.flags.c_contiguous


def test_memory_is_reused_in_turns() -> None:
    """Input, intermediate and output share bytes 0.. as a planner would let them."""
    values = [tensor(2, 3, at=0), tensor(2, 3, at=64), tensor(2, 3, at=0)]
    program = make(values, [0], [2], [("test::add.out", 0, 0, 1, 1), ("test::add.out", 1, 1, 2, 2)])
    x = ONES.copy()
    np.testing.assert_array_equal(run(program, x)[0], ONES * 4)
    np.testing.assert_array_equal(x, ONES)


def test_mutable_buffer_persists() -> None:
    state = np.full((2, 3), 10, np.float32)
    values = [tensor(2, 3), tensor(2, 3, at=0, data=state.tobytes()), tensor(2, 3, at=64)]
    program = make(values, [0], [2], [("test::add.out", 0, 1, 2, 2), ("test::copy_", 1, 2, 1)])
    assert [run(program, ONES)[0][0, 0] for _ in range(3)] == [11, 12, 13]


def test_dynamic_shapes_up_to_the_bound() -> None:
    dynamic: dict[str, Any] = {"dynamism": Dynamism.DYNAMIC_BOUND}
    values = [tensor(4, 3, **dynamic, at=at) for at in (0, 64, None)]
    program = make(values, [0], [2], [("test::add.out", 0, 0, 1, 1), ("test::add.out", 1, 1, 2, 2)])
    for rows in (4, 1, 3, 0, 4):
        x = np.random.default_rng(rows).random((rows, 3), np.float32)
        np.testing.assert_array_equal(run(program, x)[0], x * 4)
    with pytest.raises(InputError, match=r"input 0 .* size 5 in dimension 0, beyond the bound 4"):
        run(program, np.ones((5, 3), np.float32))


def test_scalar_inputs() -> None:
    values = [3, 2.0, tensor(2, 3), 4, True, None]
    program = make(values, [0, 1, 2, 3, 4, 5], [3, 2], [("test::times", 0, 0, 3)])
    method = program.method()
    assert [str(spec) for spec in method.inputs] == [
        "int",
        "float = 2.0",
        "float32[2, 3]",
        "int",
        "bool = True",
        "None = None",
    ]
    assert run(program, 5, 2.0, ONES, 4, True, None)[0] == 25
    for wrong in (
        (5.0, 2.0, ONES, 4, True, None),
        (True, 2.0, ONES, 4, True, None),
        (5, 2.5, ONES, 4, True, None),
        (5, 2.0, ONES, 4, False, None),
        (5, 2.0, ONES, 4, True, 1),
    ):
        with pytest.raises(InputError, match=r"^input \d is "):
            run(program, *wrong)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((ONES,), "takes 2 inputs"),
        ((ONES, ONES, ONES), "takes 2 inputs"),
        ((ONES, ONES.astype(np.float64)), "input 1 is float64, the program takes float32"),
        ((ONES, ONES.astype(">f4")), "input 1 is >f4"),
        ((ONES[:1], ONES), r"input 0 has shape \(1, 3\), the program takes \(2, 3\)"),
        ((ONES[0], ONES), "input 0 has shape .* rank 1, the program takes rank 2"),
        ((ONES, [[1.0] * 3] * 2), "input 1 is a list, not an array"),
        ((ONES, None), "input 1 is a NoneType"),
        ((ONES, "x"), "input 1 is a str"),
        ((ONES, 1.0), "input 1 is a float, not an array"),
    ],
)
def test_wrong_inputs(given: tuple[Any, ...], message: str) -> None:
    program = make([tensor(2, 3)] * 3, [0, 1], [2], [("test::add.out", 0, 1, 2, 2)])
    with pytest.raises(InputError, match=message):
        run(program, *given)


def test_array_likes() -> None:
    torch = pytest.importorskip("torch")
    program = make([tensor(2, 3), tensor(2, 3)], [0], [1], [("test::add.out", 0, 0, 1, 1)])

    class Other:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return ONES

    for x in (torch.ones(2, 3), torch.ones(2, 3, requires_grad=True), Other()):
        np.testing.assert_array_equal(run(program, x)[0], ONES * 2)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    program = make(
        [tensor(2, 3, dtype=ScalarType.BFLOAT16)] * 2, [0], [1], [("test::add.out", 0, 0, 1, 1)]
    )
    (y,) = run(program, torch.ones(2, 3, dtype=torch.bfloat16))
    assert y.dtype == ml_dtypes.bfloat16 and (y == 2).all()


Damage = Callable[[], LoadedProgram]
_SQUARE = [("test::add.out", 0, 0, 1, 1)]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (lambda: make([tensor(2), tensor(1 << 50)], [0], [1], _SQUARE), "absurdly large"),
        (
            lambda: make([tensor(2), tensor(1 << 41, at=0)], [0], [1], _SQUARE, memory=1 << 45),
            "bytes of memory",
        ),
        (lambda: make([tensor(2)] * 2, [0], [1], [("test::add.out", 0, 0, 7, 7)]), "value 7"),
        (lambda: make([tensor(2)] * 2, [0], [1], [("test::add.out", 0)]), "arguments"),
        (lambda: make([tensor(2)] * 2, [0], [1], [("test::add.out", 0, 1, 1)]), "failed"),
        (lambda: make([tensor(2), 3], [0], [0], _SQUARE), "no tensor"),
        (lambda: make([tensor(2), tensor(3)], [0], [1], _SQUARE), r"shape \(2,\)"),
        (lambda: make([tensor(2), tensor(2, 1)], [0], [1], _SQUARE), r"shape \(2,\)"),
        (lambda: make([tensor(2)] * 2, [0], [1], [("test::bad.out", 0, 1, 1)]), "what a mess"),
        (lambda: make([tensor(2)] * 2, [0], [1], [JumpFalseCall(0, 99)]), "instruction 99"),
        (lambda: make([tensor(2)] * 2, [0], [1], [JumpFalseCall(0, 1)]), "not a bool"),
        (
            lambda: make(
                [tensor(2), IntList((2, 2, 2)), 1 << 20, 0.0, tensor(2)],
                [0],
                [4],
                [("test::sized.out", 1, 3, 4, 4)],
            ),
            "does not fit",
        ),
        (
            lambda: make([tensor(2), tensor(2, data=b"1234")], [0], [1], []),
            "takes 8 bytes, the file has 4",
        ),
        (
            lambda: make(
                [tensor(2), tensor(2, data=bytes(8))], [0], [1], [("test::same.out", 0, 1, 1)]
            ),
            "read-only",
        ),
    ],
)
def test_damaged_programs(damaged: Damage, message: str) -> None:
    program = damaged()
    with pytest.raises(InvalidProgramError, match=message):
        run(program, np.ones(2, np.float32))


def test_missing_kernels_are_all_named() -> None:
    code = [("test::nope.out", 0, 1, 1), ("test::add.out", 0, 0, 1, 1), ("test::never", 0, 1)]
    with pytest.raises(UnsupportedError, match="test::never, test::nope.out"):
        make([tensor(2)] * 2, [0], [1], code).method()


def test_unknown_element_type_and_external_weights() -> None:
    with pytest.raises(UnsupportedError, match="QUINT4X2"):
        make([tensor(2, dtype=ScalarType.QUINT4X2)], [0], [0], []).method()
    with pytest.raises(InputError, match=r"\.ptd"):
        make([tensor(2, external=True, name="w")], [], [0], []).method()


def test_methods_by_name() -> None:
    one = Method("encode", [4], [], [0], [])
    program = LoadedProgram(Program([one]))
    assert program.methods == ("encode",)
    assert program.method().run([]) == [4]
    with pytest.raises(InputError, match="'decode'.* has encode"):
        program.method("decode")
    both = LoadedProgram(Program([one, Method("decode", [5], [], [0], [])]))
    with pytest.raises(InputError, match="name one of encode, decode"):
        both.method()


def test_calls_from_several_threads_take_turns() -> None:
    program = make(
        [tensor(64), tensor(64, at=0), tensor(64)],
        [0],
        [2],
        [("test::add.out", 0, 0, 1, 1), ("test::add.out", 1, 1, 2, 2)],
    )
    wrong: list[int] = []

    def work(number: int) -> None:
        x = np.full(64, number, np.float32)
        for _ in range(200):
            if not (run(program, x)[0] == 4 * number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

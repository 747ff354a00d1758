"""The method core on programs made in memory: instructions, memory, shapes, errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock.errors import InputError, InvalidProgramError, UnsupportedError
from penstock.formats.program import (
    Allocation,
    Dynamism,
    FreeCall,
    IntList,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    Operator,
    OptionalTensorList,
    Program,
    ScalarType,
    Tensor,
    TensorList,
)
from penstock.runtime import method as method_module
from penstock.runtime.kernels.registry import kernel, reserve
from penstock.runtime.program import LoadedProgram

F32, I64, BOOL = ScalarType.FLOAT, ScalarType.LONG, ScalarType.BOOL


@kernel("test::add.out")
def _add(a: Any, b: Any, out: Any) -> Any:
    return np.add(a, b)


@kernel("test::add_into.out")
def _add_into(a: Any, b: Any, out: Any) -> Any:
    return np.add(a, b, out=out)


@kernel("test::same.out")
def _same(a: Any, out: Any) -> Any:
    return a


@kernel("test::sized.out")
def _sized(size: list[int], value: float, out: Any) -> Any:
    return np.full(reserve(size, out), value)


@kernel("test::two.out", outs=2)
def _two(a: Any, low: Any, high: Any) -> Any:
    return a - 1, a + 1


@kernel("test::halves.out")
def _halves(a: Any, out: Any) -> Any:
    assert isinstance(out, list)
    return np.split(a, len(out))


@kernel("test::total.out")
def _total(tensors: Any, out: Any) -> Any:
    return sum(t for t in tensors if t is not None)


@kernel("test::copy_", in_place=True)
def _copy(self: Any, source: Any) -> Any:
    return np.broadcast_to(source, self.shape)


@kernel("test::plus", outs=0)
def _plus(a: Any, b: Any) -> Any:
    return a + b


@kernel("test::equal", outs=0)
def _equal(a: Any, b: Any) -> Any:
    return a == b


@kernel("test::row.out")
def _row(a: Any, index: int, out: Any) -> Any:
    return a[index]


@kernel("test::times", outs=0)
def _times(a: Any, b: Any) -> Any:
    return a * b


@kernel("test::bad.out")
def _bad(a: Any, out: Any) -> Any:
    raise IndexError("what\na mess")


def tensor(*shape: int, dtype: ScalarType = F32, at: int | None = None, **rest: Any) -> Tensor:
    allocation = None if at is None else Allocation(1, at)
    return Tensor(dtype, shape, allocation=allocation, **rest)


def make(
    values: list[Any],
    inputs: list[int],
    outputs: list[int],
    code: list[Any],
    memory: int = 1 << 12,
    **rest: Any,
) -> LoadedProgram:
    """``code`` has (operator, value, ...) tuples beside instructions."""
    operators: list[Operator] = []
    instructions: list[Any] = []
    for one in code:
        if isinstance(one, tuple):
            name, _, overload = one[0].partition(".")
            instructions.append(KernelCall(len(operators), one[1:]))
            operators.append(Operator(name, overload))
        else:
            instructions.append(one)
    method = Method(
        "forward",
        values,
        inputs,
        outputs,
        instructions,
        operators,
        memory_sizes=[0, memory],
        **rest,
    )
    return LoadedProgram(Program([method]))


def run(program: LoadedProgram, *inputs: Any) -> list[Any]:
    return program.method().run(inputs)


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("operator", ["test::add.out", "test::add_into.out"])
@pytest.mark.parametrize("places", [(None, None, None), (0, 24, 48), (0, 24, 0)])
def test_kernel(operator: str, places: tuple[int | None, ...]) -> None:
    values = [tensor(2, 3, at=place) for place in places]
    program = make(values, [0, 1], [2], [(operator, 0, 1, 2, 2)])
    a, b = ONES.copy(), ONES * 2
    (first,) = run(program, a, b)
    (second,) = run(program, b, b)
    np.testing.assert_array_equal(first, ONES * 3)
    np.testing.assert_array_equal(second, ONES * 4)
    np.testing.assert_array_equal(a, ONES)
    assert first.flags.owndata or first.base.flags.owndata


def test_large_outputs_are_the_callers_own() -> None:
    size = method_module.COPIED_OUTPUT_BYTES
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


def test_elided_view_of_an_input_sees_the_input() -> None:
    """Value 1 has the input's bytes in another shape, and no instruction writes it."""
    values = [tensor(2, 3, at=0), tensor(6, at=0), tensor(6, at=64)]
    program = make(values, [0], [2], [("test::add.out", 1, 1, 2, 2)])
    np.testing.assert_array_equal(run(program, ONES)[0], np.full(6, 2))
    np.testing.assert_array_equal(run(program, ONES * 4)[0], np.full(6, 8))


def test_elided_view_as_output() -> None:
    values = [tensor(2, 3), tensor(2, 3, at=64), tensor(6, at=64), tensor(3, 2, at=64)]
    program = make(values, [0], [2, 3], [("test::add.out", 0, 0, 1, 1)])
    flat, tall = run(program, ONES)
    np.testing.assert_array_equal(flat, np.full(6, 2))
    np.testing.assert_array_equal(tall, np.full((3, 2), 2))


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


def test_view_and_its_source_share_memory() -> None:
    size = IntList((3, 4))
    values = [tensor(2, 3), tensor(6, at=0), size, -1, 1, tensor(6, 1, at=0), tensor(6, 1)]
    program = make(
        values,
        [0],
        [5, 6],
        [
            ("executorch_prim::et_view.default", 0, 2, 5),
            ("test::add.out", 5, 5, 6, 6),
        ],
    )
    seen, doubled = run(program, ONES)
    np.testing.assert_array_equal(seen, np.ones((6, 1)))
    np.testing.assert_array_equal(doubled, np.full((6, 1), 2))
    assert not np.shares_memory(seen, ONES)


def test_loop_over_rows() -> None:
    """map: row i of the output = row i of the input, doubled; the loop ends with i == 4."""
    x, rows, i, row, doubled, one, four, done, zero = range(9)
    values = [
        tensor(4, 3),
        tensor(4, 3, at=0, dynamism=Dynamism.DYNAMIC_BOUND),
        0,
        tensor(3, at=64),
        tensor(3, at=128),
        1,
        4,
        False,
        0,
    ]
    code = [
        ("test::row.out", x, i, row, row),
        ("test::add.out", row, row, doubled, doubled),
        ("executorch_prim::et_copy_index.tensor", rows, doubled, i),
        ("test::plus", i, one, i),
        ("test::equal", i, four, done),
        JumpFalseCall(done, 0),
        ("test::times", i, zero, i),
    ]
    program = make(values, [x], [rows], code)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for _ in range(2):  # the counter is set back by the last instruction
        np.testing.assert_array_equal(run(program, x)[0], 2 * x)


def test_jump_and_move() -> None:
    """Both ways of a condition, given as a bool tensor."""
    values = [
        tensor(dtype=BOOL),
        tensor(2, 3),
        tensor(2, 3, at=0),
        tensor(2, 3, at=64),
        tensor(2, 3, at=128),
        False,
    ]
    code = [
        JumpFalseCall(0, 4),
        ("test::add.out", 1, 1, 2, 2),
        MoveCall(2, 4),
        JumpFalseCall(5, 6),
        ("test::same.out", 1, 3, 3),
        MoveCall(3, 4),
    ]
    program = make(values, [0, 1], [4], code)
    for _ in range(2):
        np.testing.assert_array_equal(run(program, np.array(True), ONES)[0], ONES * 2)
        np.testing.assert_array_equal(run(program, np.array(False), ONES)[0], ONES)


def test_endless_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_module, "MAX_BACKWARD_JUMPS", 100)
    program = make([False], [], [], [JumpFalseCall(0, 0)])
    with pytest.raises(InvalidProgramError, match="for ever"):
        run(program)


def test_numbers_stay_within_64_bits() -> None:
    program = make([1 << 62, 4], [], [0], [("test::times", 0, 1, 0)])
    with pytest.raises(InvalidProgramError, match="64 bits"):
        run(program)
    assert program.method()._state.values[0] == 1 << 62


def test_lists_and_several_outputs() -> None:
    values = [
        tensor(4),
        tensor(2, at=0),
        tensor(2, at=64),
        TensorList((1, 2)),
        OptionalTensorList((1, -1, 2)),
        None,
        tensor(2),
        tensor(2),
        tensor(2),
    ]
    program = make(
        values,
        [0],
        [6, 7, 8],
        [
            ("test::halves.out", 0, 3, 3),
            ("test::total.out", 4, 6, 6),
            ("test::two.out", 6, 7, 8, 3),
        ],
    )
    total, low, high = run(program, np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(total, [2, 4])
    np.testing.assert_array_equal(low, [1, 3])
    np.testing.assert_array_equal(high, [3, 5])


def test_dynamic_shapes_up_to_the_bound() -> None:
    dynamic: dict[str, Any] = {"dynamism": Dynamism.DYNAMIC_BOUND}
    values = [tensor(4, 3, **dynamic, at=at) for at in (0, 64, None)]
    program = make(values, [0], [2], [("test::add.out", 0, 0, 1, 1), ("test::add.out", 1, 1, 2, 2)])
    for rows in (4, 1, 3, 0, 4):
        x = np.random.default_rng(rows).random((rows, 3), np.float32)
        np.testing.assert_array_equal(run(program, x)[0], x * 4)
    with pytest.raises(InputError, match=r"input 0 .* size 5 in dimension 0, beyond the bound 4"):
        run(program, np.ones((5, 3), np.float32))


def test_unbounded_output() -> None:
    values = [
        IntList((1, 2)),
        3,
        5,
        2.5,
        tensor(1, 1, dynamism=Dynamism.DYNAMIC_UNBOUND, at=0),
        tensor(1, 1, dynamism=Dynamism.DYNAMIC_UNBOUND),
    ]
    program = make(
        values,
        [],
        [5],
        [("test::sized.out", 0, 3, 4, 4), ("test::add.out", 4, 4, 5, 5), FreeCall(4)],
    )
    for _ in range(2):
        np.testing.assert_array_equal(run(program)[0], np.full((3, 5), 5.0))


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
        (lambda: make([tensor(2), tensor(2, at=4090)], [0], [1], _SQUARE), "4096 bytes"),
        (lambda: make([tensor(2), tensor(2, at=-8)], [0], [1], _SQUARE), "bytes -8"),
        (lambda: make([tensor(2), tensor(1 << 50)], [0], [1], _SQUARE), "absurdly large"),
        (lambda: make([tensor(2), tensor(-1)], [0], [1], _SQUARE), "negative"),
        (
            lambda: make([tensor(2), tensor(1 << 41, at=0)], [0], [1], _SQUARE, memory=1 << 45),
            "bytes of memory",
        ),
        (lambda: make([tensor(2)] * 2, [0], [1], [("test::add.out", 0, 0, 7, 7)]), "value 7"),
        (lambda: make([tensor(2)] * 2, [0], [5], _SQUARE), "value 5"),
        (lambda: make([tensor(2)] * 2, [0, 0], [1], _SQUARE), "input twice"),
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

"""Whatever array a caller has: read where it lies or copied, with the answers of a plain one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.errors import InputError
from penstock.runtime.program import ENGINES, LoadedProgram, load

STOCK = Path(__file__).parents[1] / "formats" / "stock"
#: Delegated as a whole in fp32 and int8, dynamic, in part, and not at all.
FILES = ["image_fp32", "image_q8", "rows_dynamic_q8", "partly", "nested", "add_q8_undelegated"]


class OnlyDlpack:
    """Another library's array that can do nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def strided(array: np.ndarray) -> np.ndarray:
    room = np.full([2 * size + 1 for size in array.shape], 7).astype(array.dtype)
    part = room[tuple(slice(1, None, 2) for _ in array.shape)]
    part[...] = array
    return part


def misaligned(array: np.ndarray) -> np.ndarray:
    found = np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view(array.dtype)
    return found.reshape(array.shape)


def mapped(array: np.ndarray) -> Any:
    with open("/dev/zero", "rb") as file:
        found = np.memmap(file, array.dtype, "c", shape=array.shape)
    found[...] = array
    return found


def jax(array: np.ndarray) -> Any:
    numpy = pytest.importorskip("jax.numpy", reason="jax is not installed")
    if array.dtype.itemsize == 8:
        pytest.skip("jax has no 64 bits unless it is asked for them")
    return numpy.asarray(array)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "read-only": read_only,
    "Fortran's order": np.asfortranarray,
    "not contiguous": strided,
    "backwards": lambda a: a[tuple(slice(None, None, -1) for _ in a.shape)].copy()[
        tuple(slice(None, None, -1) for _ in a.shape)
    ],
    "misaligned": misaligned,
    "memmap": mapped,
    "torch": lambda a: torch.from_numpy(a.copy()),
    "torch, transposed": lambda a: torch.from_numpy(np.ascontiguousarray(a.T)).permute(
        *reversed(range(a.ndim))
    ),
    "torch, with a gradient": lambda a: nn.Parameter(
        torch.from_numpy(a.copy()), requires_grad=a.dtype.kind == "f"
    ),
    "DLPack": lambda a: OnlyDlpack(torch.from_numpy(a.copy())),
    "DLPack, strided": lambda a: OnlyDlpack(strided(a)),
    "jax": jax,
}


def inputs(program: LoadedProgram, seed: int = 0) -> list[np.ndarray]:
    noise, found = np.random.default_rng(seed), []
    for spec in program.method().inputs:
        assert isinstance(spec, penstock.TensorSpec)
        values = noise.standard_normal(spec.shape)
        found.append((values if spec.dtype.kind == "f" else values > 0).astype(spec.dtype))
    return found


@pytest.fixture(scope="module", params=[(name, engine) for name in FILES for engine in ENGINES])
def program(request: pytest.FixtureRequest) -> LoadedProgram:
    name, engine = request.param
    return load(STOCK / f"{name}.pte", threads=1, engine=engine)


@pytest.mark.parametrize("form", FORMS)
def test_any_array(program: LoadedProgram, form: str) -> None:
    for seed in range(2):  # the first call goes the long way
        given = inputs(program, seed)
        expected = [np.array(value) for value in program.method().run(given)]
        others = [FORMS[form](array) for array in given]
        found = program.method().run(others)
        for value, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_outputs_stay(program: LoadedProgram) -> None:
    """A later call changes neither them nor the inputs."""
    given = [inputs(program, seed) for seed in range(4)]
    copies = [[array.copy() for array in one] for one in given]
    found = [program.method().run(one) for one in given]
    kept = [[np.array(value) for value in values] for values in found]
    for one in reversed(given):
        program.method().run(one)
    for values, before in zip(found, kept, strict=True):
        for value, wanted in zip(values, before, strict=True):
            np.testing.assert_array_equal(value, wanted)
    for one, before in zip(given, copies, strict=True):
        for array, wanted in zip(one, before, strict=True):
            np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "int32", "uint8", "bool", "complex64", ">f4"]
)
def test_other_dtypes_are_errors(dtype: str) -> None:
    program = load(STOCK / "image_fp32.pte", threads=1)
    (given,) = inputs(program)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"input 0 is {np.dtype(dtype)}, the program takes f"):
            program(np.zeros(given.shape, dtype))
        program(given)
    with pytest.raises(InputError, match="input 0 is a list, not an array"):
        program(given.tolist())


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + x.sum(1, keepdim=True)


@pytest.mark.parametrize("delegate", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_not_a_number_and_infinities(engine: str, delegate: bool) -> None:
    """They stay in the rows that they are in, as eager's do."""
    model, x = Affine().eval(), torch.randn(5, 6)
    x[1, 2], x[2, 0], x[3, 5] = math.nan, math.inf, -math.inf
    program = load(penstock.lower(model, (x,), delegate=delegate).to_bytes(), engine=engine)
    for _ in range(2):
        (found,) = program(x)
        np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("delegate", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_no_elements(engine: str, delegate: bool) -> None:
    model, rows = Affine().eval(), torch.export.Dim("rows", min=0, max=8)
    lowered = penstock.lower(
        model, (torch.randn(3, 6),), dynamic_shapes=({0: rows},), delegate=delegate
    )
    program = load(lowered.to_bytes(), engine=engine)
    for count in (3, 0, 5, 0, 0, 8):
        x = torch.randn(count, 6)
        for given in (x, x.numpy(), np.asfortranarray(x.numpy())):
            (found,) = program(given)
            assert found.shape == (count, 4) and found.dtype == np.float32
            np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


class Numbers(nn.Module):
    def forward(
        self, x: torch.Tensor, n: torch.Tensor, b: torch.Tensor, f: torch.Tensor
    ) -> torch.Tensor:
        return torch.where(b, x * n, x * f)


def test_numbers_for_tensors_without_dimensions() -> None:
    """They are what they are, or an error: 3.7 was taken for 3, and 2 ** 70 ended in ours."""
    example = (
        torch.ones(2), torch.tensor(3, dtype=torch.int32), torch.tensor(True), torch.tensor(1.0)
    )  # fmt: skip
    program = load(penstock.lower(Numbers(), example).to_bytes())
    x = np.ones(2, np.float32)
    for given, expected in (
        ((3, True, 0.5), 3),
        ((np.int32(-3), np.True_, 0.5), -3),
        ((3, False, 2), 2),
        ((3, False, np.float64(0.5)), 0.5),
        ((3, False, 1e300), np.inf),
    ):
        np.testing.assert_array_equal(program(x, *given)[0], np.full(2, expected, np.float32))
    for given, message in (
        ((3.7, True, 1.0), r"input 1 is 3.7, the program takes int32\[\]"),
        ((True, True, 1.0), r"input 1 is True, the program takes int32\[\]"),
        ((np.float64(2), True, 1.0), r"input 1 is np.float64\(2.0\), the program takes int32\[\]"),
        ((float("nan"), True, 1.0), r"input 1 is nan, the program takes int32\[\]"),
        ((2**31, True, 1.0), r"input 1 is 2147483648, the program takes int32\[\]"),
        ((2**70, True, 1.0), r"input 1 is 1180591620717411303424, the program takes int32"),
        ((3, 1, 1.0), r"input 2 is 1, the program takes bool\[\]"),
        ((3, 0.5, 1.0), r"input 2 is 0.5, the program takes bool\[\]"),
        ((3, True, True), r"input 3 is True, the program takes float32\[\]"),
        ((3, True, 10**400), r"input 3 is 1000.*\.\.\., the program takes float32\[\]"),
    ):
        with pytest.raises(InputError, match=message):
            program(x, *given)

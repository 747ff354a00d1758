"""The short way of small calls beside the long one."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.errors import InputError
from penstock.runtime.engines.native import library
from penstock.runtime.program import LoadedProgram
from penstock.runtime.short_call import COPIED_INPUT_BYTES

ENGINES = ("auto", "xnnpack", "native") if library.reason_against() is None else ("xnnpack",)


class Mixed(nn.Module):
    """A convolution with dilation, which our own kernels take on each machine, between nodes that
    XNNPACK keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=2, dilation=2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.relu(self.conv(torch.sigmoid(x))) * y
        return torch.softmax(z, -1), z


class Sum(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def mixed_inputs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((1, 4, 5, 7), np.float32), rng.random((1, 6, 1, 1), np.float32)


@pytest.fixture(scope="module")
def mixed() -> bytes:
    torch.manual_seed(0)
    arguments = tuple(map(torch.from_numpy, mixed_inputs(0)))
    return penstock.lower(Mixed().eval(), arguments).to_bytes()


@pytest.fixture(scope="module")
def total() -> bytes:
    return penstock.lower(Sum(), (torch.ones(3, 4), torch.ones(3, 4))).to_bytes()


def long_way(program: LoadedProgram, *inputs: Any) -> Any:
    """The answer without the short way."""
    method = program.method()
    short, method._short = method._short, None
    try:
        return program(*inputs)
    finally:
        method._short = short


def ready(data: bytes, inputs: tuple[Any, ...], **options: Any) -> LoadedProgram:
    """A program that has run once, hence knows its short way."""
    program = penstock.load(data, **options)
    program(*inputs)
    return program


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_answers(mixed: bytes, engine: str, threads: int) -> None:
    program = ready(mixed, mixed_inputs(0), engine=engine, threads=threads)
    assert program.method()._short is not None
    kept = []
    for seed in range(4):
        inputs = mixed_inputs(seed)
        before = [array.copy() for array in inputs]
        found, expected = program(*inputs), long_way(program, *inputs)
        kept.append((found, expected))
        for a, b in zip(inputs, before, strict=True):
            np.testing.assert_array_equal(a, b)
    for found, expected in kept:  # after the later calls
        assert type(found) is tuple
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
            a[...] = 0  # the caller's own


def test_a_flat_list_takes_it_too(total: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    method = ready(total, (x, x)).method()
    seen: list[int] = []
    method.observed([x, x], lambda done: seen.append(done.position))  # looks at the long way
    assert seen == [0]
    monkeypatch.delattr(type(method), "_run_new")
    np.testing.assert_array_equal(method.run([x, x])[0], 2 * x)


def test_any_memory_layout(mixed: bytes) -> None:
    program = ready(mixed, mixed_inputs(0))
    x, y = mixed_inputs(1)
    expected = program(x, y)
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    for given in (np.asfortranarray(x), x[..., ::-1].copy()[..., ::-1], read_only, unaligned):
        for a, b in zip(program(given, y), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "given",
    [
        lambda x: torch.from_numpy(x),
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: x.view(type("Own", (np.ndarray,), {})),
    ],
)
def test_other_inputs_go_the_long_way(total: bytes, given: Callable[[Any], Any]) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    program = ready(total, (x, x))
    for _ in range(2):
        try:
            (found,) = program(given(x), x)
            np.testing.assert_array_equal(found, 2 * x)
        except InputError as error:
            assert "convert it with" in str(error)  # other bytes of a number
        np.testing.assert_array_equal(program(x, x)[0], 2 * x)


def test_the_errors_of_the_long_way(total: bytes) -> None:
    x = np.ones((3, 4), np.float32)
    program = ready(total, (x, x))
    for inputs in ((x,), (x, x, x), (x, x.astype(np.float64)), (x, x[:1]), (x, x.tolist()), ()):
        with pytest.raises(InputError) as expected:
            long_way(program, *inputs)
        with pytest.raises(InputError) as found:
            program(*inputs)
        assert str(found.value) == str(expected.value)


def test_which_programs_have_it(total: bytes) -> None:
    x = np.ones((3, 4), np.float32)
    assert ready(total, (x, x)).method()._short is not None
    assert ready(total, (x, x), profile=True).method()._short is None
    for size in (COPIED_INPUT_BYTES // 8, COPIED_INPUT_BYTES // 8 + 1):
        large = torch.ones(size)
        program = ready(penstock.lower(Sum(), (large, large)).to_bytes(), (large, large))
        assert (program.method()._short is not None) == (size * 8 <= COPIED_INPUT_BYTES)
    rows = {"x": {0: torch.export.Dim("rows", max=5)}, "y": {0: torch.export.Dim("rows", max=5)}}
    data = penstock.lower(Sum(), (torch.ones(3, 4), torch.ones(3, 4)), dynamic_shapes=rows)
    assert ready(data.to_bytes(), (x, x)).method()._short is None


@pytest.mark.parametrize("engine", ENGINES)
def test_a_first_call_whose_inputs_end_with_a_page(total: bytes, engine: str) -> None:
    """Engines copy such inputs, for kernels may read beyond them; the copies of the short way lie
    elsewhere."""
    pages = np.zeros(3 * mmap.PAGESIZE, np.uint8)
    end = -pages.ctypes.data % mmap.PAGESIZE + mmap.PAGESIZE
    x = pages[end - 48 : end].view(np.float32).reshape(3, 4)
    x[...] = np.arange(12).reshape(3, 4)
    program = ready(total, (x, x), engine=engine)
    assert program.method()._short is not None
    for factor in (1, 2):
        np.testing.assert_array_equal(
            program(x * factor, x)[0], long_way(program, x * factor, x)[0]
        )
        np.testing.assert_array_equal(program(x, x)[0], long_way(program, x, x)[0])


class Counter(nn.Module):
    """Keeps state: what is written to a buffer is there in the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(x)
        return self.count * 2


def test_state() -> None:
    program = penstock.load(penstock.lower(Counter(), (torch.ones(3),)).to_bytes())
    for call in range(1, 5):
        (found,) = program(np.ones(3, np.float32))
        np.testing.assert_array_equal(found, np.full(3, 2.0 * call, np.float32))


@pytest.mark.parametrize("engine", ENGINES)
def test_many_threads(mixed: bytes, engine: str) -> None:
    program = ready(mixed, mixed_inputs(0), engine=engine, threads=2)
    expected = {seed: long_way(program, *mixed_inputs(seed)) for seed in range(4)}
    failures: list[object] = []

    def work(seed: int) -> None:
        x, y = mixed_inputs(seed)
        for turn in range(60):
            given = torch.from_numpy(x) if turn % 7 == seed else x  # the long way in between
            for a, b in zip(program(given, y), expected[seed], strict=True):
                if not np.array_equal(a, b):
                    failures.append((seed, turn))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures

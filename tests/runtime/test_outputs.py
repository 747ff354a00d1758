"""Outputs in the caller's arrays: computed in place where that can be, else copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock
from penstock.errors import InputError
from penstock.runtime import method as methods
from penstock.runtime.program import ENGINES, LoadedProgram, load

STOCK = Path(__file__).parents[1] / "formats" / "stock"


def compiled(model: torch.nn.Module, *args: torch.Tensor, **options: Any) -> bytes:
    return penstock.lower(model.eval(), args, **options).to_bytes()


class Wide(torch.nn.Module):
    """Outputs too large to be copied out, one of them an image in channels-last memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.conv(x))
        return y, y.sum((2, 3))


@pytest.fixture(scope="module")
def wide() -> bytes:
    return compiled(Wide(), torch.ones(1, 3, 64, 64))


def noise(program: LoadedProgram) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s.shape).astype(s.dtype) for s in program.method().inputs]


@pytest.mark.parametrize("engine", ENGINES)
def test_large_outputs_are_computed_in_place(
    engine: str, wide: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load(wide, threads=1, engine=engine)
    (x,) = noise(program)
    expected = [array.copy() for array in program(x)]
    out = [np.full_like(array, np.nan) for array in expected]
    copied: list[int] = []
    fill = methods.fill

    def filled(array: Any, value: Any, position: int) -> Any:
        if value is not array:
            copied.append(position)
        return fill(array, value, position)

    monkeypatch.setattr(methods, "fill", filled)
    found = program(x, out=out)
    assert copied == [1], "the small one is copied anyhow"
    for given, array, value in zip(out, found, expected, strict=True):
        assert array is given
        np.testing.assert_array_equal(array, value)
    again = program(x + 1)
    assert not any(np.may_share_memory(a, b) for a, b in zip(out, again, strict=True))
    np.testing.assert_array_equal(out[0], expected[0])


@pytest.mark.parametrize("name", ["image_fp32", "image_q8", "nested", "partly", "rows_inline"])
def test_any_layout(name: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1)
    method, given = program.method(), noise(program)
    expected = [np.array(array) for array in method.run(given)]
    for step in (1, 2, -1):
        out = [
            np.zeros((*a.shape, 2), a.dtype)[..., 0]
            if step == 2
            else np.zeros(a.shape[::step], a.dtype).transpose()
            if step == -1
            else np.zeros_like(a)
            for a in expected
        ]
        for array, value in zip(method.run(given, out=out), expected, strict=True):
            np.testing.assert_array_equal(array, value)
        assert all(a is b for a, b in zip(method.run(given, out=out), out, strict=True))


def test_into_an_input(wide: bytes) -> None:
    same = compiled(torch.nn.Conv2d(3, 3, 3, padding=1), torch.ones(1, 3, 80, 80))
    program = load(same, threads=1)
    (x,) = noise(program)
    expected = program(x)[0].copy()
    program(x, out=x)
    np.testing.assert_array_equal(x, expected)


def test_one_for_two(wide: bytes) -> None:
    program = load(wide, threads=1)
    (x,) = noise(program)
    expected = program(x)
    image, sums = program(x, out=(None, np.empty_like(expected[1])))
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(sums, expected[1])


def test_dynamic_sizes() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    data = compiled(torch.nn.Linear(64, 512), torch.ones(3, 64), dynamic_shapes=({0: batch},))
    program = load(data, threads=1)
    x = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    out = np.empty((40, 512), np.float32)
    assert program(x, out=out)[0] is out
    np.testing.assert_array_equal(out, program(x)[0])
    with pytest.raises(InputError, match=r"out\[0\] has shape \(39, 512\)"):
        program(x, out=np.empty((39, 512), np.float32))


class Named(torch.nn.Module):
    def forward(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        return x + out


def test_a_models_own_input_of_that_name() -> None:
    one = torch.ones(3)
    program = load(penstock.lower(Named(), (one,), {"out": one}).to_bytes(), threads=1)
    np.testing.assert_array_equal(program(one.numpy(), out=one.numpy())[0], [2, 2, 2])
    out = np.zeros(3, np.float32)
    program.method().run([one.numpy(), one.numpy()], out=out)
    np.testing.assert_array_equal(out, [2, 2, 2])


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ([np.zeros((1, 8, 64, 64), np.float32)], "1 arrays for 2 outputs"),
        ("ab", "1 arrays for 2 outputs"),
        ([np.zeros((1, 8, 64, 64)), None], "is float64, the output is float32"),
        ([np.zeros((8, 64, 64), np.float32), None], r"has shape \(8, 64, 64\)"),
        ([[0.0], None], "is a list, not a NumPy array"),
        ([np.broadcast_to(np.float32(0), (1, 8, 64, 64)), None], "read-only"),
    ],
)
def test_what_does_not_fit(out: Any, said: str, wide: bytes) -> None:
    program = load(wide, threads=1)
    (x,) = noise(program)
    with pytest.raises(InputError, match=said):
        program(x, out=out)
    program(x)


@pytest.mark.parametrize("engine", ENGINES)
def test_large_outputs_that_are_kept_are_not_written_again(engine: str) -> None:
    """New ones lie where earlier ones did, but only once nothing refers to those."""
    program = load(compiled(Wide(), torch.ones(1, 3, 224, 224)), threads=1, engine=engine)
    rng = np.random.default_rng(0)
    kept: list[tuple[Any, np.ndarray]] = []
    places = set()
    for i in range(12):
        x = rng.standard_normal((1, 3, 224, 224)).astype(np.float32)
        image = program(x)[0]
        assert image.nbytes > 1 << 20
        places.add(image.__array_interface__["data"][0])
        tensor = torch.from_numpy(image)
        held = (image[0, 3:, ::2], memoryview(image.transpose(0, 2, 3, 1)), tensor.numpy()[0])
        del tensor
        if i % 4 < 3:
            kept.append((held[i % 4], np.array(held[i % 4])))
        if i == 8:
            kept.clear()
    assert kept and len(places) < 12
    for view, content in kept:
        assert np.array_equal(np.asarray(view), content)


class Several(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + 1, x * 2


def test_outputs_that_share_memory() -> None:
    """The last one was in both, and nobody was told."""
    program = load(compiled(Several(), torch.ones(4)))
    x, room = np.arange(4, dtype=np.float32), np.zeros(8, np.float32)
    one = np.empty_like(x)
    for out in ([one, one], [room[:4], room[2:6]], (room[:4], room[3::-1])):
        with pytest.raises(InputError, match=r"out\[1\] and out\[0\] share memory; give it memory"):
            program(x, out=out)
    for out in ([room[::2], room[1::2]], [room[:4], room[4:]], [one, None]):  # interleaved
        added, doubled = program(x, out=out)
        np.testing.assert_array_equal(added, x + 1)
        np.testing.assert_array_equal(doubled, x * 2)

"""Recurrent layers: steps are found in what the compiler makes of them, and run as one."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from native_harness import ARM, ISAS, THREADS, guarded, native, numbers, xnnpack
from torch import nn

import penstock
from penstock.compiler.quantize import Scheme
from penstock.runtime.blocks import address
from penstock.runtime.engines.native import cells
from penstock.runtime.engines.native.families import bind_families
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.native.plan import pool_of
from penstock.runtime.engines.native.recurrent_bits import has_the_same_bits

VECTOR_ISAS = [isa for isa in ISAS if isa != "scalar"]
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU}


class Layer(nn.Module):
    def __init__(self, kind: str, *sizes: int, **options: Any) -> None:
        super().__init__()
        self.layer = KINDS[kind](*sizes, **options)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found, state = self.layer(x)
        return (found, *state) if isinstance(state, tuple) else (found, state)


def steps_of(data: bytes, x: np.ndarray) -> int:
    """The steps that run as one where our kernels have all that they can."""
    program = penstock.load(data, threads=1, engine="native", profile=True)
    program(x)
    nodes = [n for i in program.profile().instructions for n in i.nodes]
    return sum(n.operators[0].startswith(("f32_cell", "qd8_cell")) for n in nodes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "hidden", "options", "steps"),
    [
        ((5, 1, 8), 16, {}, 4),
        ((1, 6, 8), 16, {"batch_first": True}, 5),
        ((3, 4, 5), 19, {"batch_first": True, "bidirectional": True}, 6),
        ((4, 6, 7), 33, {"num_layers": 2, "bias": False}, 6),
        ((7, 9, 3), 1, {"bidirectional": True}, 12),
        ((6, 4), 50, {}, 5),
    ],
)
def test_layers(
    kind: str, shape: tuple[int, ...], hidden: int, options: dict[str, Any], steps: int
) -> None:
    torch.manual_seed(0)
    model = Layer(kind, shape[-1], hidden, **options).eval()
    x = torch.randn(shape) * 2
    data = penstock.lower(model, (x,)).to_bytes()
    expected = [y.detach().numpy() for y in model(x)]
    for isa in VECTOR_ISAS:
        for threads in (1, 2):
            program = penstock.load(data, threads=threads, engine=[native(isa), xnnpack()])
            for _ in range(2):
                for y, z in zip(program(x.numpy()), expected, strict=True):
                    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)
    if VECTOR_ISAS:
        # Without a batch the last cell is copied twice before the step's output is made.
        kept = kind == "LSTM" and len(shape) == 2
        assert steps_of(data, x.numpy()) == steps - kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_state_and_a_last_output(kind: str) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = KINDS[kind](6, 24)
            self.head = nn.Linear(24, 3)

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            state = (h, c) if kind == "LSTM" else h
            found = self.layer(x, state)[0][-1]
            return self.head(found + c[0])

    torch.manual_seed(1)
    model, inputs = Last().eval(), (torch.randn(5, 2, 6), *(torch.randn(1, 2, 24) for _ in "hc"))
    data = penstock.lower(model, inputs).to_bytes()
    expected = model(*inputs).detach().numpy()
    for isa in VECTOR_ISAS:
        program = penstock.load(data, threads=1, engine=[native(isa), xnnpack()])
        found = program(*(x.numpy() for x in inputs))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size(kind: str) -> None:
    torch.manual_seed(2)
    model = Layer(kind, 8, 20, batch_first=True).eval()
    batch = torch.export.Dim("batch", max=30)
    lowered = penstock.lower(model, (torch.randn(4, 5, 8),), dynamic_shapes=({0: batch},))
    program = penstock.load(lowered.to_bytes(), threads=1, engine="native")
    for rows in (1, 30, 6, 4):
        x = torch.randn(rows, 5, 8)
        for y, z in zip(program(x.numpy()), model(x), strict=True):
            np.testing.assert_allclose(y, z.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantize", ["static_per_channel", "dynamic_per_channel"])
@pytest.mark.parametrize("batch", [1, 6])
def test_the_bits_of_xnnpack_beside_int8(kind: str, quantize: Scheme, batch: int) -> None:
    """What is quantized behind the steps would show another rounding."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(12, 20)
            self.layer = KINDS[kind](20, 37, num_layers=2, bidirectional=True)
            self.head = nn.Linear(74, 30)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(self.before(x))[0])

    torch.manual_seed(6)
    x = torch.randn(7, batch, 12) * 2
    kept = penstock.Quantization(quantize, operators={kind.lower(): None})
    lowered = penstock.lower(Classifier().eval(), (x,), quantize=kept, calibration=[(x,)])
    data = lowered.to_bytes()
    (theirs,) = penstock.load(data, threads=1, engine="xnnpack")(x.numpy())
    for threads in (1, 2):
        (found,) = penstock.load(data, threads=threads)(x.numpy())
        np.testing.assert_array_equal(found.view(np.int32), theirs.view(np.int32))
    if has_the_same_bits(shared_library()):
        assert steps_of(data, x.numpy()) == 24


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 6])
def test_int8_weights(kind: str, batch: int) -> None:
    """The state is quantized and multiplied in the same call; the bits are XNNPACK's where both
    use the same instruction set, else the answer is near."""
    torch.manual_seed(7)
    options: dict[str, Any] = {"bias": batch == 1, "bidirectional": True}
    model, x = Layer(kind, 20, 37, **options).eval(), torch.randn(7, batch, 20) * 2
    data = penstock.lower(model, (x,), quantize="dynamic").to_bytes()
    theirs = penstock.load(data, threads=1, engine="xnnpack")(x.numpy())
    exact = has_the_same_bits(shared_library())
    for threads in (1, 2):
        program = penstock.load(data, threads=threads)
        for _ in range(2):
            for y, z in zip(program(x.numpy()), theirs, strict=True):
                np.testing.assert_array_equal(y.view(np.int32), z.view(np.int32))
    if exact:
        assert steps_of(data, x.numpy()) == 12
    expected = [y.detach().numpy() for y in model(x)]
    for isa in ISAS:
        program = penstock.load(data, threads=1, engine=[native(isa), xnnpack()])
        for y, z in zip(program(x.numpy()), expected, strict=True):
            np.testing.assert_allclose(y, z, atol=0.05)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", [0, 1])
def test_a_product_that_is_known(isa: str, form: int) -> None:
    """As a step with int8 weights has it: the same as where the step multiplies by itself."""
    library = open_library(shared_library().path, isa)
    bind_families(library)
    for hidden in (1, 5, 16, 33):
        rows, gates = 3, (4, 3)[form] * hidden
        x, product, h, c = (numbers((rows, n), hidden) for n in (gates, gates, hidden, hidden))
        with guarded([x, product, h, c, np.zeros_like(c), np.zeros_like(h)]) as arrays:
            gx, given, gh, gc, cell, output = arrays
            task = cells.CTask(
                int(library.isa), form, rows, hidden, 0, gates, None, None, address(gx),
                address(gh), address(gc), address(cell), address(output), None, address(given),
            )  # fmt: skip
            library.functions.pk_f32_cell_run(ctypes.byref(task), None)
            weights = np.zeros((hidden, gates))
            wanted, _ = exact(form, x + product, h, c, weights, np.zeros(hidden))
            if form == 0:
                np.testing.assert_allclose(output, wanted, rtol=2e-5, atol=2e-5)
            else:
                n = hidden
                r, z = (1 / (1 + np.exp(-(x + product)[:, k * n : (k + 1) * n])) for k in range(2))
                made = np.tanh(x[:, 2 * n :] + r * product[:, 2 * n :])
                np.testing.assert_allclose(output, made + z * (h - made), rtol=2e-5, atol=2e-5)


@pytest.mark.skipif(ARM or not VECTOR_ISAS, reason="XNNPACK's sigmoid is another one there")
def test_the_highest_instruction_set_has_the_same_bits() -> None:
    assert has_the_same_bits(shared_library())


def test_cells_that_look_alike() -> None:
    """Other gates, another state, other weights: not taken for steps."""

    class Own(nn.Module):
        def __init__(self, order: tuple[int, ...]) -> None:
            super().__init__()
            self.order = order
            self.x, self.h = nn.Linear(8, 64), nn.Linear(16, 64, bias=False)

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            gates = self.x(x) + self.h(h)
            some = torch.sigmoid(gates[:, :48]).split(16, 1)
            i, f, o = (some[n] for n in self.order)
            cell = f * c + i * torch.tanh(gates[:, 48:])
            return o * torch.tanh(cell)

    torch.manual_seed(3)
    inputs = (torch.randn(2, 8), torch.randn(2, 16), torch.randn(2, 16))
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 0, 2)):
        model = Own(order).eval()
        data = penstock.lower(model, inputs).to_bytes()
        program = penstock.load(data, threads=1, engine="native")
        found = program(*(x.numpy() for x in inputs))[0]
        expected = model(*inputs).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def exact(
    form: int, x: np.ndarray, h: np.ndarray, c: np.ndarray, w: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x, h, c, w, b = (np.asarray(a, np.float64) for a in (x, h, c, w, b))
    n = h.shape[1]

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-a)))

    if form == 0:
        gates = x + h @ w
        i, f, o = (sigmoid(gates[:, k * n : (k + 1) * n]) for k in range(3))
        cell = f * c + i * np.tanh(gates[:, 3 * n :])
        return o * np.tanh(cell), cell
    gates = h @ w
    r, z = (sigmoid((x + gates)[:, k * n : (k + 1) * n]) for k in range(2))
    made = np.tanh(x[:, 2 * n :] + r * (gates[:, 2 * n :] + b))
    return made + z * (h - made), c


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", [0, 1])
def test_every_size(isa: str, form: int) -> None:
    library = open_library(shared_library().path, isa)
    bind_families(library)
    pool = pool_of(THREADS[1])
    for hidden in (*range(1, 20), 31, 32, 33, 64, 100, 130):
        rows, gates = hidden % 7 + 1, (4, 3)[form] * hidden
        x, h, c = (numbers((rows, size), hidden) * 3 for size in (gates, hidden, hidden))
        w, b = numbers((hidden, gates), 1), numbers((hidden,), 2)
        arrays = [x, h, c, cells.in_panels(w.T), b, np.zeros_like(c), np.zeros_like(h)]
        with guarded(arrays) as (gx, gh, gc, gw, gb, cell, output):
            task = cells.CTask(
                int(library.isa), form, rows, hidden, 0, gates, address(gw),
                address(gb) if form else None, address(gx), address(gh), address(gc),
                address(cell), address(output),
            )  # fmt: skip
            size = library.functions.pk_f32_cell_scratch_size(ctypes.byref(task))
            with guarded([np.zeros(size // 4, np.float32)]) as (scratch,):
                task.scratch = address(scratch)
                library.functions.pk_f32_cell_run(ctypes.byref(task), ctypes.byref(pool))
            wanted, new = exact(form, x, h, c, w, b)
            np.testing.assert_allclose(output, wanted, rtol=2e-5, atol=2e-5)
            if form == 0:
                np.testing.assert_allclose(cell, new, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_extremes(isa: str) -> None:
    """Gates far out, tiny ones (whose tanh is themselves), NaN."""
    library = open_library(shared_library().path, isa)
    bind_families(library)
    made = np.array([1e-30, -1e-10, 1e-4, -0.3, 9, -1e30, np.inf, np.nan], np.float32)
    n = len(made)
    x = np.concatenate([np.full(n, 1e4), np.full(n, -1e4), np.full(n, np.inf), made])
    x = x.astype(np.float32)[None]
    zeros, cell, output = np.zeros((1, n), np.float32), np.empty(n, "f4"), np.empty(n, "f4")
    weights, scratch = np.zeros((n, 4 * n), np.float32), np.empty(16 * n, np.float32)
    task = cells.CTask(
        int(library.isa), 0, 1, n, 0, 4 * n, address(weights), None, address(x), address(zeros),
        address(zeros), address(cell), address(output), address(scratch),
    )  # fmt: skip
    pool = pool_of(THREADS[1])
    library.functions.pk_f32_cell_run(ctypes.byref(task), ctypes.byref(pool))
    bent = np.tanh(made.astype(np.float64))
    np.testing.assert_allclose(cell, bent, rtol=1e-6)
    np.testing.assert_allclose(output, np.tanh(bent), rtol=2e-6)


def test_gates_that_spread() -> None:
    """An input or a product of one row or column, which sums spread over the others."""

    class Spread(nn.Module):
        def __init__(self, shape: tuple[int, int]) -> None:
            super().__init__()
            self.h, self.given = nn.Linear(16, 64, bias=False), nn.Parameter(torch.randn(shape))

        def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            gates = self.given + self.h(h)
            i, f, o = torch.sigmoid(gates[:, :48]).split(16, 1)
            return o * torch.tanh(f * c + i * torch.tanh(gates[:, 48:]))

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.n = nn.Linear(16, 32, bias=False), nn.Linear(16, 1)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            r, z = torch.sigmoid(x[:, :32] + self.h(h)).split(16, 1)
            made = torch.tanh(x[:, 32:] + r * self.n(h))
            return made + z * (h - made)

    torch.manual_seed(4)
    h, c = torch.randn(2, 16), torch.randn(2, 16)
    cases: list[tuple[nn.Module, tuple[torch.Tensor, ...]]] = [
        (Spread((1, 64)), (h, c)), (Spread((2, 1)), (h, c)), (Narrow(), (torch.randn(2, 48), h)),
    ]  # fmt: skip
    for model, inputs in cases:
        data = penstock.lower(model.eval(), inputs).to_bytes()
        found = penstock.load(data, threads=1, engine="native")(*(x.numpy() for x in inputs))[0]
        expected = model(*inputs).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_what_only_begins_like_a_step(shape: tuple[int, ...]) -> None:
    """x - tanh(x), of any rank."""
    x = torch.randn(shape)
    data = penstock.lower(torch.nn.Tanhshrink(), (x,)).to_bytes()
    (found,) = penstock.load(data, threads=1, engine="native")(x.numpy())
    np.testing.assert_allclose(found, (x - torch.tanh(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_steps_that_differ_in_one_place() -> None:
    """A range of a GRU's difference; a state that is one of the step's own gates."""

    class Limited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.n = nn.Linear(16, 32, bias=False), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            r, z = torch.sigmoid(x[:, :32] + self.h(h)).split(16, 1)
            made = torch.tanh(x[:, 32:] + r * self.n(h))
            return made + z * (h - made).clamp(0, 0.5)

    class OwnGate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = nn.Linear(16, 64, bias=False)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            gates = x + self.h(h)
            i, f, o = torch.sigmoid(gates[:, :48]).split(16, 1)
            return o * torch.tanh(f * o + i * torch.tanh(gates[:, 48:]))

    torch.manual_seed(5)
    h = torch.randn(2, 16)
    for model, width in ((Limited(), 48), (OwnGate(), 64)):
        x = torch.randn(2, width)
        data = penstock.lower(model.eval(), (x, h)).to_bytes()
        program = penstock.load(data, threads=1, engine="native")
        for _ in range(2):
            (found,) = program(x.numpy(), h.numpy())
            expected = model(x, h).detach().numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

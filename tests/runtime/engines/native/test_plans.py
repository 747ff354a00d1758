"""Delegates cut between our own kernels and XNNPACK, run by one call into C."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from native_harness import ISAS, THREADS, native
from torch import nn

import penstock
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.runtime import blocks
from penstock.runtime.engines.native.composed import PlannedGraph
from penstock.runtime.engines.native.conversions import CCopy
from penstock.runtime.engines.native.engine import NativeEngine, NativeExecutable
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.native.plan import Plan, address_of
from penstock.runtime.engines.planner import compile_graph
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


class Residual(nn.Module):
    """Products, and what our own kernels leave to XNNPACK between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.a = nn.Conv2d(24, 24, 3, padding=1)
        self.b = nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=4)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(24, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.stem(x))
        y = torch.nn.functional.hardswish(self.a(x))
        y = self.pool(torch.relu(self.b(y) + x))
        return self.head(y.mean((2, 3))), y


def lowered(dynamic: bool = False, scale: int = 1) -> bytes:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 20 * scale, 22 * scale)
    batch = torch.export.Dim("batch", min=1, max=4)
    shapes = {"x": {0: batch}} if dynamic else None
    return penstock.lower(Residual().eval(), (x,), dynamic_shapes=shapes).to_bytes()


def image(size: int = 2) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((size, 3, 20, 22), np.float32)


def compiled(data: bytes, *engines: Engine) -> Any:
    """What the only delegate of a program becomes."""
    program = read_program(data)
    (delegate,) = program.methods[0].delegates
    return compile_graph(
        read_payload(delegate.payload, program.named_data), engines, threads=THREADS[1]
    )


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


class Scaled(nn.Module):
    """A scale for each channel, in place where nobody else reads what it scales."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(24, 24, 1)
        self.b = nn.Conv2d(24, 24, 1, groups=24)
        self.c = nn.Conv2d(24, 24, 1, groups=24)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.b(self.a(x))
        return y, self.c(y + 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_scales_in_place(threads: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 24, 19, 23)
    data = penstock.lower(Scaled().eval(), (x,)).to_bytes()
    expected = penstock.load(data, engine="xnnpack", threads=1)(x)
    assert_same(penstock.load(data, engine="native", threads=threads)(x), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_one_plan(isa: str, threads: int) -> None:
    data, x = lowered(), image()
    expected = penstock.load(data, threads=1, engine="xnnpack")(x)
    program = penstock.load(data, threads=threads, engine=[native(isa), XnnpackEngine()])
    for _ in range(3):
        assert_same(program(x), expected)
    executable = compiled(data, native(isa), XnnpackEngine())
    executable.reshape([image().shape])
    assert isinstance(executable, PlannedGraph) and executable._plan is not None
    kinds = {type(e).__name__ for _, e in executable._steps}
    assert kinds == {"NativeExecutable", "XnnpackExecutable"}


def test_sizes_that_change() -> None:
    data = lowered(dynamic=True)
    program = penstock.load(data, threads=1, engine="native")
    whole = penstock.load(data, threads=1, engine="xnnpack")
    for size in (2, 4, 1, 3, 4):
        assert_same(program(image(size)), whole(image(size)))


class Reshaped(nn.Module):
    """Shapes of the same bytes: of what is read again later, of that again, of what goes in, and
    of what goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(24, 24), nn.Linear(48, 48), nn.Linear(12, 24)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.a(x.reshape(12, 24))
        wide = y.reshape(6, 48)
        z = self.b(wide).reshape(12, 24)
        narrow = self.c(wide.reshape(24, 12))
        return y + z, narrow.reshape(2, 12, 24)


@pytest.mark.skipif(len(ISAS) < 2, reason="no vectors here")
@pytest.mark.parametrize("threads", [1, 2])
def test_other_shapes_stay_where_they_are(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 24)
    data = penstock.lower(Reshaped().eval(), (x,)).to_bytes()
    expected = penstock.load(data, engine="xnnpack", threads=1)(x)
    places: list[bool] = []
    patched = Plan.__init__

    def init(self: Plan, library: Any, *rest: Any) -> None:
        patched(self, library, *rest)
        copy = address_of(library.functions, "pk_copy_run")
        tasks = [CCopy.from_address(step.task) for step in self._steps if step.run == copy]
        places.extend(task.input == task.output for task in tasks)

    monkeypatch.setattr(Plan, "__init__", init)
    program = penstock.load(data, engine=[native(ISAS[-1]), XnnpackEngine()], threads=threads)
    for _ in range(2):
        assert_same(program(x), expected)
    assert places == [False, True, True, True, False]  # what goes in and out is moved


class Beside(nn.Module):
    """Kernels of ours with a value between them that the batch does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(24, 24, 3, padding=1)
        self.b = nn.Conv2d(24, 24, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.max_pool2d(x, 2), self.b(torch.relu(self.a(y)))


def test_batches_of_none_between_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then parts run one by one, in memory of their own and not in that of the plan before."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 8), torch.randn(1, 24, 9, 9)
    batch = torch.export.Dim("batch", min=1, max=4)
    shapes: Any = {"x": {0: batch}, "y": None}
    data = penstock.lower(Beside().eval(), (x, y), dynamic_shapes=shapes).to_bytes()
    expected = penstock.load(data, engine="xnnpack", threads=1)(x, y)
    made: list[np.ndarray] = []
    allocate = blocks.large

    def large(size: int) -> Any:
        made.append(allocate(size))
        return made[-1]

    monkeypatch.setattr(blocks, "large", large)
    executable = compiled(data, native(ISAS[-1]), XnnpackEngine())
    answer = np.empty(y.shape, np.float32)
    for _ in range(2):
        executable.reshape([tuple(x.shape), tuple(y.shape)])
        first = np.empty((2, 3, 4, 4), np.float32)
        executable.run([x.numpy(), y.numpy()], [first, answer])
        assert_same([first, answer], expected)
        last = made[-1]
        executable.reshape([(0, 3, 8, 8), tuple(y.shape)])
        last[...] = 0
        executable.run([x.numpy()[:0], y.numpy()], [first[:0], answer])
        assert_same([answer], expected[1:])
        assert not last.any()


def test_arrays_anywhere_in_memory() -> None:
    """Misaligned ones, and ones that end where the page ends."""
    data, x = lowered(), image()
    engines = native(ISAS[-1]), XnnpackEngine()
    expected = penstock.load(data, threads=1, engine=engines)(x)
    executable = compiled(data, *engines)
    inputs, outputs = x, []
    for shape in executable.reshape([inputs.shape]):
        outputs.append(np.empty(shape, np.float32))
    executable.run([inputs], outputs)
    features, logits = outputs
    np.testing.assert_array_equal(logits, expected[0])
    np.testing.assert_array_equal(features, expected[1])
    for offset in range(5):
        room = np.empty(inputs.nbytes + 8, np.uint8)
        moved = room[offset : offset + inputs.nbytes].view(np.float32).reshape(inputs.shape)
        moved[...] = inputs
        space = np.empty(features.nbytes + 8, np.uint8)
        place = space[offset : offset + features.nbytes].view(np.float32)
        place = place.reshape(features.shape)
        executable.run([moved], [place, np.zeros_like(logits)])
        np.testing.assert_array_equal(place, features)
    with pytest.raises(penstock.InputError, match="it takes contiguous float32"):
        executable.run([inputs.astype(np.float64)], outputs)
    with pytest.raises(penstock.InputError, match="it takes contiguous float32"):
        executable.run([inputs[:1]], outputs)


def test_programs_at_the_same_time() -> None:
    """Two programs, each called from several threads, with two threads of its own."""
    data = lowered()
    images = [np.roll(image(), shift, 3) for shift in range(4)]
    whole = penstock.load(data, threads=1, engine="xnnpack")
    expected = [whole(x) for x in images]
    programs = [penstock.load(data, threads=2, engine="native") for _ in range(2)]
    failed: list[BaseException] = []

    def call(number: int) -> None:
        try:
            for turn in range(12):
                which = (number + turn) % len(images)
                assert_same(programs[turn % 2](images[which]), expected[which])
        except BaseException as error:
            failed.append(error)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failed, failed[0]


def test_times_of_nodes() -> None:
    program = penstock.load(lowered(), threads=1, engine="native", profile=True)
    plain = penstock.load(lowered(), threads=1, engine="xnnpack")
    assert_same(program(image()), plain(image()))
    table = str(program.profile())
    assert table.count("CONV_2D") == 3 and "FULLY_CONNECTED" in table
    engines = NativeEngine(everything=True, profile=True), XnnpackEngine(profile=True)
    executable = compiled(lowered(), *engines)
    shapes = executable.reshape([image().shape])
    executable.run([image()], [np.empty(shape, np.float32) for shape in shapes])
    times = executable.profile()
    assert sum(time.name.startswith("f32_igemm ") for time in times) == 4
    assert len({time.node for time in times}) >= 8


@pytest.mark.skipif("avx2" not in ISAS, reason="there products of quantized rows are ours")
def test_times_of_nodes_of_one_part() -> None:
    """Conversions go with the products that read them: all is ours, though not all was chosen."""
    model = nn.Sequential(nn.Linear(384, 384), nn.Linear(384, 16)).eval()
    x = torch.randn(128, 384)
    data = penstock.lower(model, (x,), quantize="dynamic").to_bytes()
    library = open_library(shared_library().path, "avx2")
    engines = NativeEngine(library=library, profile=True), XnnpackEngine(profile=True)
    program = penstock.load(data, threads=1, engine=engines, profile=True)
    program(x.numpy())
    kinds = [node.kind for one in program.profile().instructions for node in one.nodes]
    assert kinds == ["CONVERT", "FULLY_CONNECTED"] * 2


def test_a_graph_of_our_own_kernels_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 9)
    model = nn.Sequential(nn.Linear(9, 33), nn.ReLU(), nn.Linear(33, 17), nn.Linear(17, 2))
    data = penstock.lower(model.eval(), (x,)).to_bytes()
    program = penstock.load(data, threads=1, engine="native")
    assert_same(program(x.numpy()), [model(x).detach().numpy()])
    assert isinstance(compiled(data, native(ISAS[-1])), NativeExecutable)


def test_rules() -> None:
    """With "auto" a node goes where it is faster by more than the cuts cost; without vector kernels
    all goes to XNNPACK."""
    for scale in (1, 4):
        data = lowered(scale=scale)
        x = np.random.default_rng(0).standard_normal((2, 3, 20 * scale, 22 * scale), np.float32)
        expected = penstock.load(data, threads=1, engine="xnnpack")(x)
        for isa in ISAS:
            engine = NativeEngine(library=native(isa).library)
            program = penstock.load(data, threads=1, engine=[engine, XnnpackEngine()])
            assert_same(program(x), expected)
            own = type(compiled(data, engine, XnnpackEngine())).__name__
            if isa == "scalar" or (scale == 1 and "avx512" in isa):
                assert own == "XnnpackExecutable"
            elif scale > 1:
                assert own == "PlannedGraph"

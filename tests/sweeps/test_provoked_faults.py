"""Whatever goes wrong inside ends in one line that says where, and that it is a fault of ours.

An exception is put into every stage, every step of every pipeline, every operator's lowering, and
kernels and engines; the error that comes out of the Python interface and of the command line must
be a :class:`penstock.PenstockError` that names what was being done, and at which operator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from operator_cases import Case
from sweep_cases import first_cases, named_cases
from torch import nn

import penstock
from penstock.cli import main as command_line
from penstock.cli import runners
from penstock.compiler import pipeline
from penstock.compiler.delegate import passes
from penstock.compiler.delegate.operators import registry
from penstock.compiler.rewrite import pipelines
from penstock.compiler.steps import Step
from penstock.runtime.engines.xnnpack import engine, executable
from penstock.runtime.kernels import registry as kernels


def raising(error: BaseException | None = None, name: str = "apply", module: str = "") -> Any:
    """A function that raises, in a frame that is neither ours nor the test's."""
    made = mock.Mock(side_effect=error or KeyError("boom"), __name__=name)
    made.__module__ = module
    return made


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu().sort(-1)[0] + 1


class Outer(nn.Module):
    """A case's function as the module ``block``, so that it has a path."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.block = function if isinstance(function, nn.Module) else Wrapped(function)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.block(*inputs)


class Wrapped(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def image() -> torch.Tensor:
    return torch.randn(1, 3, 8, 8)


def compiled(**options: Any) -> penstock.Lowered:
    return penstock.lower(Block().eval(), (image(),), **options)


def check(error: BaseException, *parts: str) -> None:
    """A fault of ours, in one line that says so, with ``parts``."""
    assert isinstance(error, penstock.InternalError), repr(error)
    text = str(error)
    assert "\n" not in text
    for part in (*parts, "This is a fault of Penstock", "report", "penstock/", "KeyError: 'boom'"):
        assert part in text, f"{part!r} is not in: {text}"
    assert isinstance(error.__cause__, KeyError)


STAGES = {
    "capture": (pipeline, "capture", {}),
    "rewrite": (pipelines, "run", {}),
    "prepare quantization": (sys.modules["penstock.compiler.quantize.flow"], "_prepared",
                             {"quantize": "static"}),
    "calibrate": (sys.modules["penstock.compiler.quantize.calibrate"]._Calibration, "run_flat",
                  {"quantize": "static"}),
    "convert to int8": (sys.modules["penstock.compiler.quantize.flow"], "convert",
                        {"quantize": "static"}),
    "partition": (pipeline, "partition", {}),
    "delegate": (pipeline, "insert_calls", {}),
    "emit": (pipeline, "emit", {}),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, options = STAGES[stage]
    monkeypatch.setattr(module, name, raising())
    with pytest.raises(penstock.PenstockError) as caught:
        compiled(**options)
    check(caught.value, f"stage {stage!r}")
    assert caught.value.stage == stage


def test_writing_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    lowered = compiled()
    monkeypatch.setattr(pipeline, "write_program", raising())
    monkeypatch.setattr(pipeline, "program_chunks", raising())
    for write in (lowered.to_bytes, lambda: lowered.save(tmp_path / "model.pte")):
        with pytest.raises(penstock.PenstockError) as caught:
            write()
        check(caught.value, "stage 'write'")


REWRITES = ("CANONICALIZE", "FOR_STATIC_QUANTIZATION", "BEFORE_PARTITION", "FOR_KERNELS")
PIPELINES = [(pipelines, name) for name in REWRITES]
STEPS = [
    (module, name, position)
    for module, name in [*PIPELINES, (passes, "PIPELINE")]
    for position in range(len(getattr(module, name)))
]


@contextmanager
def broken(step: Step[Any]) -> Iterator[Step[Any]]:
    apply = raising(name=step.apply.__name__, module=step.apply.__module__)
    yield replace(step, apply=apply, needs_fixed_sizes=False)


@pytest.mark.parametrize(
    ("module", "name", "position"), STEPS, ids=[f"{n}-{p}" for _, n, p in STEPS]
)
def test_every_step(module: Any, name: str, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: Sequence[Step[Any]] = getattr(module, name)
    with broken(steps[position]) as step:
        changed = (*steps[:position], step, *steps[position + 1 :])
    monkeypatch.setattr(module, name, changed)
    if name == "CANONICALIZE":
        monkeypatch.setattr(pipelines.run, "__defaults__", (changed,))
    scheme = "static" if name == "FOR_STATIC_QUANTIZATION" else None
    with pytest.raises(penstock.PenstockError) as caught:
        compiled(quantize=scheme)
    check(caught.value, f"step {steps[position].name!r}")


def _lowering(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = (one for one in registry.entries() if one.name == case.entry)
    changed = replace(entry, lower=raising(module=entry.lower.__module__))
    for target in entry.targets:
        monkeypatch.setitem(registry._BY_TARGET, target, changed)
    with pytest.raises(penstock.PenstockError) as caught:
        penstock.lower(Outer(case.function).eval(), case.inputs)
    error = caught.value
    check(error, "stage 'partition'", " at ", "(block")
    assert isinstance(error, penstock.InternalError)
    assert error.operator in map(str, entry.targets)
    assert error.module.startswith("block")
    assert ".py:" in error.source


def _ids(cases: list[tuple[str, Case]]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in cases])


@_ids(first_cases()[::12])
def test_some_lowerings(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    _lowering(case, monkeypatch)


@pytest.mark.sweep
@_ids(first_cases())
def test_every_lowering(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    _lowering(case, monkeypatch)


def _kernels(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel that the case's program calls when nothing is delegated."""
    lowered = penstock.lower(Outer(case.function).eval(), case.inputs, delegate=False)
    data = lowered.to_bytes()
    method = lowered.program.method("forward")
    assert method is not None
    for name in {str(operator) for operator in method.operators}:
        found = kernels.find(name)
        if found is None:
            continue  # sizes and copies, which the core does itself
        with monkeypatch.context() as patch:
            patch.setitem(kernels._kernels, name, replace(found, function=raising()))
            with pytest.raises(penstock.PenstockError) as caught:
                penstock.load(data)(*(x.numpy() for x in case.inputs))
        text = str(caught.value)
        for part in ("instruction", name, "KeyError: 'boom'", "this is a fault of Penstock"):
            assert part in text, text


@_ids(named_cases()[::60])
def test_some_kernels(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    _kernels(case, monkeypatch)


@pytest.mark.sweep
@_ids(first_cases())
def test_kernels_of_every_entry(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    _kernels(case, monkeypatch)


@pytest.mark.parametrize("name", ["reshape", "run"])
def test_an_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = penstock.load(compiled().to_bytes())
    engine.shared_library()  # passes its self-test
    monkeypatch.setattr(executable.XnnpackExecutable, name, raising())
    with pytest.raises(penstock.PenstockError, match="instruction 0 .*KeyError.*a fault of Penst"):
        program(image())


@pytest.mark.parametrize(
    ("name", "stage"),
    [("read_program", "load"), ("Method", "prepare"), ("compile_delegate", "prepare")],
)
def test_loading(name: str, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = compiled().to_bytes()
    monkeypatch.setattr(sys.modules["penstock.runtime.program"], name, raising())
    with pytest.raises(penstock.PenstockError) as caught:
        penstock.load(data)(image())
    check(caught.value, f"stage {stage!r}")


def test_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    torchs = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
    for error in (MemoryError("too much"), torchs):
        monkeypatch.setattr(pipeline, "partition", raising(error))
        with pytest.raises(penstock.OutOfMemoryError, match="out of memory in the stage 'parti"):
            compiled()
    with pytest.raises(MemoryError):
        compiled()


def test_what_ends_a_program_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyboardInterrupt(), SystemExit(3)):
        monkeypatch.setattr(pipeline, "partition", raising(error))
        with pytest.raises(type(error)):
            compiled()


def test_code_of_the_caller_is_named() -> None:
    def batches() -> Iterator[Any]:
        yield (image(),)
        raise LookupError("no more pictures")

    with pytest.raises(penstock.InputError, match=r"calibrate.*LookupError.*test_provoked.*\.py:"):
        compiled(quantize="static", calibration=batches())


def test_of_a_delegates_graph_the_operator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(graph: Any) -> None:
        for node in graph.nodes:
            if node.kind.name == "CONV_2D":
                _raise(node)

    code = apply.__code__.replace(co_filename=passes.__file__)
    apply.__code__ = code
    monkeypatch.setattr(passes, "PIPELINE", (Step(apply, ""),))
    with pytest.raises(penstock.InternalError) as caught:
        compiled()
    check(caught.value, "aten.conv2d.default (conv, ")


_raise = raising()


COMMANDS = {
    "compile": (["compile", "mv2", "--quiet"], "penstock.cli.pipeline.compile_model"),
    "run": (["run", "model.pte"], "penstock.cli.run.run_file"),
    "inspect": (["inspect", "model.pte"], "penstock.cli.inspect.load"),
    "models": (["models"], "penstock.cli.models.Table"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, patched = COMMANDS[command]
    with mock.patch(patched, raising()), pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
        command_line.main()
    _one_line(ended.value, capsys.readouterr().err)


@pytest.mark.parametrize("entry", [runners.xnn_executor_runner, runners.executor_runner])
def test_the_runners(
    entry: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runners, "run_file", raising())
    monkeypatch.setattr(sys, "argv", ["runner", "--model_path", "model.pte"])
    with pytest.raises(SystemExit) as ended:
        entry()
    _one_line(ended.value, capsys.readouterr().err)


def _one_line(ended: SystemExit, errors: str) -> None:
    assert ended.code == 1
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: Penstock failed"), line
    assert "This is a fault of Penstock" in line

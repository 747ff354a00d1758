"""Compiling as the command line and the examples do it: source -> stages -> file -> check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.cli.console import Stages, hush_libraries
from penstock.cli.output import file_name, writable
from penstock.cli.user_code import require_model_name
from penstock.compiler.quantize.accuracy import AccuracyBudget
from penstock.compiler.quantize.quantization import (
    DYNAMIC_SCHEMES,
    Quantization,
    Scheme,
    parse_scheme,
)
from penstock.errors import InputError
from penstock.tools.agreement import largest_difference, sqnr

if TYPE_CHECKING:
    from penstock.compiler import Lowered

# Batches that a static scheme is calibrated with unless the user says otherwise.
CALIBRATION_BATCHES = 16


@dataclass(frozen=True)
class Request:
    """What to compile, and how. ``scheme`` is ``None`` for float32. ``etrecord`` is where the
    ETRecord goes, ``None`` for nowhere, an empty text for beside the program."""

    source: str
    quantize: bool = False
    scheme: str | None = None
    delegate: bool = True
    output_dir: Path = Path(".")
    output: Path | None = None
    weights: str | None = None
    seed: int = 0
    calibration: str | None = None
    calibration_batches: int = CALIBRATION_BATCHES
    # Decibels that the quantized model must reach on the data, and these.
    accuracy_budget: float | None = None
    held_out: str | None = None
    dynamic_shapes: tuple[str, ...] = ()
    test: bool = False
    etrecord: str | None = None


@dataclass
class Outcome:
    """A finished compile: the lowered program, where it was written, what each stage took."""

    name: str
    path: Path
    size: int
    scheme: Scheme | str | None
    lowered: Lowered
    timings: dict[str, float] = field(default_factory=dict)
    notice: str | None = None
    # Agreement with eager PyTorch on the example inputs, when that was asked for.
    agreement: list[Agreement] = field(default_factory=list)
    etrecord: Path | None = None


@dataclass(frozen=True)
class Agreement:
    """One output against eager: shape, signal-to-noise ratio in dB, largest absolute difference."""

    shape: tuple[int, ...]
    sqnr: float
    largest: float


def compile_model(request: Request, stages: Stages) -> Outcome:
    """Carries out ``request``; each stage is shown on ``stages``.

    Raises a ``PenstockError`` for everything that can be wrong with the request; nothing is written
    in that case.
    """
    asked = None if request.scheme is None else parse_scheme(request.scheme)
    quantized = request.quantize or asked is not None
    if request.calibration is not None and not quantized:
        raise InputError("--calibration is for quantized models: say --quantize, too")
    budget = _budget(request, quantized)
    timings: dict[str, float] = {}
    start = time.perf_counter()
    require_model_name(request.source)
    if request.output is not None:
        writable(request.output)
    else:
        writable(request.output_dir / "_")
    if request.etrecord:
        writable(Path(request.etrecord), "--etrecord")
    with stages.stage("import torch"):
        hush_libraries()
        import penstock
        from penstock.cli import sources
        from penstock.cli.calibration import calibration_data, split_data
        from penstock.cli.shapes import dynamic_shapes
        from penstock.pictures import constant_methods
    timings["import torch"] = time.perf_counter() - start
    with _timed(timings, "model"), stages.stage("model"):
        source = sources.find(request.source, weights=request.weights, seed=request.seed)
    if source.notice:
        stages.say(source.notice)
    scheme = (asked or source.scheme) if quantized else None
    path = writable(
        request.output
        or request.output_dir / file_name(source.name, scheme=scheme, delegate=request.delegate)
    )
    calibration: Iterable[Any] | None = None
    held_out: Iterable[Any] | None = None
    if budget is not None:
        count = request.calibration_batches
        calibration, held_out = split_data(
            request.calibration, request.held_out, source, (count, count)
        )
    elif scheme in DYNAMIC_SCHEMES and request.calibration is not None:
        raise InputError(f"--calibration is for static quantization: {scheme} reads none")
    elif scheme is not None and scheme not in DYNAMIC_SCHEMES:
        calibration = calibration_data(request.calibration, source, request.calibration_batches)
    shapes = source.dynamic_shapes
    if request.dynamic_shapes:
        shapes = dynamic_shapes(request.dynamic_shapes, source)
    lowered = penstock.lower(
        source.model,
        source.args,
        source.kwargs,
        dynamic_shapes=shapes,
        quantize=None if scheme is None else Quantization(scheme=scheme),
        calibration=calibration,
        held_out=held_out,
        accuracy=budget,
        delegate=request.delegate,
        etrecord=request.etrecord is not None,
        constant_methods=constant_methods(source.normalization),
        progress=stages,
    )
    timings.update(lowered.timings)
    with _timed(timings, "write"), stages.stage("write"):
        etrecord = None
        if request.etrecord is not None:
            etrecord = Path(request.etrecord or path.with_suffix(".etrecord"))
            lowered.save_etrecord(etrecord)
        lowered.save(path)
    outcome = Outcome(
        name=source.name,
        path=path,
        size=path.stat().st_size,
        scheme=scheme,
        lowered=lowered,
        timings=timings,
        notice=source.notice,
        etrecord=etrecord,
    )
    if request.test:
        with _timed(timings, "test"), stages.stage("test"):
            outcome.agreement = agreement(path, source.model, source.args, source.kwargs)
    return outcome


def _budget(request: Request, quantized: bool) -> AccuracyBudget | None:
    if request.accuracy_budget is None:
        if request.held_out is not None:
            raise InputError("--held-out is for --accuracy-budget, which is missing")
        return None
    if not quantized:
        raise InputError("--accuracy-budget is for quantized models: say --quantize, too")
    return AccuracyBudget(sqnr=request.accuracy_budget)


class _timed:
    def __init__(self, timings: dict[str, float], name: str) -> None:
        self._timings = timings
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timings[self._name] = time.perf_counter() - self._start


def agreement(
    path: Path, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Agreement]:
    """Runs the file ``path`` and ``model`` on the same inputs; one entry for each output."""
    import numpy as np
    import torch

    import penstock

    eager: Callable[..., Any] = model if isinstance(model, torch.nn.Module) else model.module()
    if isinstance(model, torch.nn.Module) and model.training:
        model.eval()
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(eager(*args, **kwargs))
    got = torch.utils._pytree.tree_leaves(penstock.load(path)(*args, **kwargs))
    results = []
    for ours, theirs in zip(got, expected, strict=True):
        if not isinstance(theirs, torch.Tensor):
            continue
        reference = theirs.detach().to(torch.float64).numpy()
        values = np.asarray(ours).astype(np.float64)
        results.append(
            Agreement(
                shape=tuple(reference.shape),
                sqnr=sqnr(reference, values),
                largest=largest_difference(reference, values),
            )
        )
    return results

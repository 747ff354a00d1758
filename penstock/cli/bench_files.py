"""What a model must be made into before it is measured, in a process of its own.

    python -m penstock.cli.bench_files SOURCE FOLDER [WEIGHTS]

reads requests, one JSON object a line, whose ``job`` is one of :data:`JOBS`, and answers each with
one; ``penstock.cli.bench_targets`` is the other end. ``SOURCE`` is what ``penstock compile`` takes,
files go to ``FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import penstock
from penstock.cli import sources
from penstock.cli.calibration import calibration_data
from penstock.cli.console import hush_libraries
from penstock.cli.onnx_files import write_onnx
from penstock.cli.pipeline import CALIBRATION_BATCHES
from penstock.cli.sources import Source, batches
from penstock.compiler.quantize.quantization import Quantization
from penstock.errors import PenstockError, for_missing_package
from penstock.tools.samples import write_inputs

#: Samples on which answers are compared: the first ones of the calibration data.
SAMPLES = 4


def samples(source: Source, folder: Path) -> dict[str, Any]:
    """``in0.npz`` ... and eager's answers ``out0.npz`` ..."""
    count = 0
    for index, (args, kwargs) in enumerate(batches(source, SAMPLES)):
        eager: Callable[..., Any] = source.model
        if not isinstance(eager, torch.nn.Module):
            eager = source.model.module()
        with torch.no_grad():
            found = pytree.tree_leaves(eager(*args, **kwargs))
        write_inputs(folder / f"in{index}.npz", _plain(pytree.tree_leaves((args, kwargs))))
        tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
        write_inputs(folder / f"out{index}.npz", _plain(tensors))
        count += 1
    return {"samples": count}


def _plain(leaves: list[Any]) -> list[Any]:
    return [leaf.detach().numpy() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def ours(source: Source, folder: Path, *, kind: str) -> dict[str, Any]:
    """``float.pte`` or ``int8.pte``."""
    lowered = penstock.lower(
        source.model,
        source.args,
        source.kwargs,
        dynamic_shapes=source.dynamic_shapes,
        quantize=None if kind == "float" else Quantization(scheme=source.scheme),
        calibration=None
        if kind == "float"
        else calibration_data(None, source, CALIBRATION_BATCHES),
    )
    path = folder / f"{kind}.pte"
    lowered.save(path)
    return {"path": str(path)}


def archive(source: Source, folder: Path) -> dict[str, Any]:
    """``model.pt2``, of ``torch.export``."""
    program = source.model
    if isinstance(program, torch.nn.Module):
        program = torch.export.export(program, source.args, source.kwargs, strict=False)
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return {"path": str(path)}


def onnx(source: Source, folder: Path, *, precision: str) -> dict[str, Any]:
    """``<precision>.onnx``."""
    path = folder / f"{precision.replace(' ', '_')}.onnx"
    calibration = [args for args, _ in batches(source, CALIBRATION_BATCHES)]
    write_onnx(source, path, precision, calibration)
    return {"path": str(path)}


Job = Callable[[Source, Path], dict[str, Any]]
JOBS: dict[str, Job] = {
    "samples": samples,
    ".pte float": partial(ours, kind="float"),
    ".pte int8": partial(ours, kind="int8"),
    ".pt2": archive,
    ".onnx float": partial(onnx, precision="float"),
    ".onnx static int8": partial(onnx, precision="static int8"),
    ".onnx dynamic int8": partial(onnx, precision="dynamic int8"),
}


def serve(name: str, folder: Path, weights: str | None) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    hush_libraries()
    # Two threads of torch that wait for each other suffer most from other work on the machine.
    torch.set_num_threads(1)
    source: Source | None = None
    for line in sys.stdin:
        try:
            if source is None:
                source = sources.find(name, weights=weights)
            found = JOBS[json.loads(line)["job"]](source, folder)
        except Exception as error:
            found = {"error": _reason(error)}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def _reason(error: Exception) -> str:
    """One line; other people's tools fail in words of their own."""
    known = for_missing_package(error) if isinstance(error, ModuleNotFoundError) else None
    if isinstance(error, PenstockError) or known:
        return " ".join(str(known or error).split())
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), next(iter(sys.argv[3:]), None))

"""Runs ``benchmarks.flow`` in processes of their own; the answers of both are compared here."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.flow import SAMPLES
from penstock.tools.bench.workers import Worker


class FlowError(RuntimeError):
    """A flow could not compile a model; the message is its last line."""


class OutOfTime(FlowError):
    """A flow was stopped because it took too long."""


def run_flow(*arguments: str, timeout: float = 1200.0) -> dict[str, Any]:
    """``run_flow("ours", "mv2", "fp32", "out.pte")``: what ``benchmarks.flow`` prints."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.flow", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OutOfTime(f"not done after {timeout:.0f} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if not line.startswith((" ", "\t")) and "Error" in line]
        raise FlowError((errors or lines or [f"exit code {done.returncode}"])[-1][:300])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stock_flow(folder: Path, name: str, precision: str, limit: float = 1200.0) -> dict[str, Any]:
    """``run_flow`` for the stock flow into ``folder``, done once for each state of the zoo.

    Raises :class:`FlowError`, also when that was what came of it the first time; what was not done
    within some seconds is only tried again with a larger ``limit``, and q8 not at all then, which
    takes longer than fp32.
    """
    path = folder / f"{name}_{precision}_stock.pte"
    note = path.with_suffix(".json")
    state = _state_of_the_zoo()
    known = _known(path, state, limit)
    if known is not None:
        if "error" in known:
            raise FlowError(known["error"])
        return known
    floating = _known(folder / f"{name}_fp32_stock.pte", state, limit) or {}
    if "limit" in floating:
        raise FlowError(f"not tried, fp32 was {floating['error']}")
    try:
        found = run_flow("stock", name, precision, str(path), timeout=limit)
    except FlowError as error:
        stop = {"limit": limit} if isinstance(error, OutOfTime) else {}
        note.write_text(json.dumps({"error": str(error), "state": state, **stop}))
        raise
    note.write_text(json.dumps({**found, "state": state}))
    return found


def _known(path: Path, state: str, limit: float) -> dict[str, Any] | None:
    """What came of the stock file ``path`` earlier, if that still holds."""
    note = path.with_suffix(".json")
    if not note.exists():
        return None
    known: dict[str, Any] = json.loads(note.read_text())
    if known.get("state") != state or known.get("limit", limit) < limit:
        return None
    return known if path.exists() or "error" in known else None


def _state_of_the_zoo() -> str:
    """Changes when the zoo's models, weights or data may have changed."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "penstock" / "zoo").glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def samples(folder: Path, model: str) -> tuple[list[Path], list[list[np.ndarray]]]:
    """The inputs' files and eager's outputs that ``benchmarks.flow eager`` wrote."""
    inputs = [folder / f"{model}.{index}.in.npz" for index in range(SAMPLES)]
    outputs = []
    for index in range(SAMPLES):
        with np.load(folder / f"{model}.{index}.out.npz") as data:
            outputs.append([data[name] for name in data.files])
    return inputs, outputs


def answers(worker: Worker, key: str, inputs: Sequence[Path]) -> list[list[np.ndarray]]:
    return [worker.outputs(key, path) for path in inputs]


Outputs = list[list[np.ndarray]]
"""For each sample the arrays that a program answers."""


def sqnr(reference: Outputs, got: Outputs) -> float:
    """Signal to noise of the worst floating-point output over all samples, in dB."""
    return min(_sqnr(pairs) for pairs in _outputs(reference, got))


def relative_error(reference: Outputs, got: Outputs) -> float:
    """Largest absolute difference of any output, in parts of that output's range."""
    return max((_relative_error(pairs) for pairs in _outputs(reference, got)), default=0.0)


def same_bits(first: Outputs, second: Outputs) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


_Pairs = list[tuple[np.ndarray, np.ndarray]]


def _outputs(reference: Outputs, got: Outputs) -> list[_Pairs]:
    """For each floating-point output the pairs of all samples. Integer outputs must be equal."""
    found = []
    for index in range(len(reference[0])):
        pairs = [(a[index], b[index]) for a, b in zip(reference, got, strict=True)]
        if reference[0][index].dtype.kind == "f":
            found.append(pairs)
            continue
        for a, b in pairs:
            if not np.array_equal(a, b):
                raise ValueError(f"output {index} differs: {a.ravel()[:4]} and {b.ravel()[:4]}")
    return found


def _sqnr(pairs: _Pairs) -> float:
    # One sample after the other: an output may have tens of millions of elements.
    noise = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in pairs)
    signal = sum(float(np.square(a.astype(np.float64)).sum()) for a, _ in pairs)
    return 10.0 * float(np.log10(signal / noise)) if noise else float("inf")


def _relative_error(pairs: _Pairs) -> float:
    lowest = min(float(a.min()) for a, _ in pairs)
    highest = max(float(a.max()) for a, _ in pairs)
    extent = (highest - lowest) or abs(highest) or 1.0
    return max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in pairs) / extent


def both_flows(
    folder: Path, stock_folder: Path, name: str, precision: str, stock_limit: float = 1200.0
) -> dict[str, Any]:
    """Compiles by both flows (by the stock one only if that was not done before, and no longer
    than ``stock_limit`` seconds): for "ours" and "stock" what the flow says, or its error."""
    found: dict[str, Any] = {}
    try:
        path = folder / f"{name}_{precision}_ours.pte"
        found["ours"] = run_flow("ours", name, precision, str(path))
    except FlowError as error:
        found["ours"] = {"error": str(error)}
    try:
        found["stock"] = stock_flow(stock_folder, name, precision, stock_limit)
    except FlowError as error:
        found["stock"] = {"error": str(error)}
    return found

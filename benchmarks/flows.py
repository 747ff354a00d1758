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

from benchmarks.flow import SAMPLES
from benchmarks.workers import ROOT, Worker


class FlowError(RuntimeError):
    """A flow could not compile a model; the message is its last line."""


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
        raise FlowError(f"not done after {timeout:.0f} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if not line.startswith((" ", "\t")) and "Error" in line]
        raise FlowError((errors or lines or [f"exit code {done.returncode}"])[-1][:300])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stock_flow(folder: Path, name: str, precision: str) -> dict[str, Any]:
    """``run_flow`` for the stock flow into ``folder``, done once for each state of the zoo.

    Raises :class:`FlowError`, also when that was what came of it the first time.
    """
    path = folder / f"{name}_{precision}_stock.pte"
    note = path.with_suffix(".json")
    state = _state_of_the_zoo()
    if note.exists():
        known: dict[str, Any] = json.loads(note.read_text())
        if known.get("state") == state and (path.exists() or "error" in known):
            if "error" in known:
                raise FlowError(known["error"])
            return known
    try:
        found = run_flow("stock", name, precision, str(path))
    except FlowError as error:
        note.write_text(json.dumps({"error": str(error), "state": state}))
        raise
    note.write_text(json.dumps({**found, "state": state}))
    return found


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


def sqnr(reference: list[list[np.ndarray]], got: list[list[np.ndarray]]) -> float:
    """Signal to noise of the worst floating-point output over all samples, in dB."""
    return min(_sqnr(a, b) for a, b in _outputs(reference, got))


def relative_error(reference: list[list[np.ndarray]], got: list[list[np.ndarray]]) -> float:
    """Largest absolute difference of any output, in parts of that output's range."""
    worst = 0.0
    for a, b in _outputs(reference, got):
        extent = float(a.max() - a.min()) or float(np.abs(a).max()) or 1.0
        worst = max(worst, float(np.abs(a - b).max()) / extent)
    return worst


def same_bits(first: list[list[np.ndarray]], second: list[list[np.ndarray]]) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def _outputs(
    reference: list[list[np.ndarray]], got: list[list[np.ndarray]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each output over all samples, as float64. Integer outputs must be equal."""
    pairs = []
    for index in range(len(reference[0])):
        a = np.concatenate([sample[index].ravel() for sample in reference])
        b = np.concatenate([sample[index].ravel() for sample in got])
        if a.dtype.kind != "f":
            if not np.array_equal(a, b):
                raise ValueError(f"output {index} differs: {a[:4]} and {b[:4]}")
            continue
        pairs.append((a.astype(np.float64), b.astype(np.float64)))
    return pairs


def _sqnr(reference: np.ndarray, got: np.ndarray) -> float:
    noise = float(np.square(reference - got).sum())
    signal = float(np.square(reference).sum())
    return 10.0 * float(np.log10(signal / noise)) if noise else float("inf")


def both_flows(folder: Path, stock_folder: Path, name: str, precision: str) -> dict[str, Any]:
    """Compiles by both flows (by the stock one only if that was not done before): for "ours" and
    "stock" what the flow says, or its error."""
    found: dict[str, Any] = {}
    try:
        path = folder / f"{name}_{precision}_ours.pte"
        found["ours"] = run_flow("ours", name, precision, str(path))
    except FlowError as error:
        found["ours"] = {"error": str(error)}
    try:
        found["stock"] = stock_flow(stock_folder, name, precision)
    except FlowError as error:
        found["stock"] = {"error": str(error)}
    return found

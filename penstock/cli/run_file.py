"""Running a program file from the command line: the work that ``penstock run``,
``xnn_executor_runner`` and ``executor_runner`` share.

:func:`run_file` does it and returns a :class:`RunReport`; :func:`show` prints one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from penstock.cli.feeds import ones, read_inputs
from penstock.errors import InputError, UnsupportedError
from penstock.files import write_file
from penstock.formats.program import XNNPACK_BACKEND
from penstock.labels import Guess, guesses, read_labels
from penstock.pictures import normalization_of
from penstock.runtime import LoadedProgram, load
from penstock.runtime.profile import Profile
from penstock.runtime.specs import listed
from penstock.text import printable

PRINT_CHOICES = ("none", "summary", "all")


@dataclass(frozen=True)
class RunRequest:
    """What to run. ``delegates`` are the backends that the runner knows; ``None``: all of ours.
    ``labels`` names a classifier's classes, see :func:`read_labels`. ``etdump`` is where the calls
    go as an ETDump, if anywhere; they are measured for it."""

    model_path: str
    inputs: Sequence[str] = ()
    data_paths: Sequence[str] = ()
    method_name: str | None = None
    threads: int | None = None
    engine: str = "auto"
    executions: int = 1
    output_file: str | None = None
    delegates: frozenset[str] | None = None
    labels: str | None = None
    etdump: str | None = None


@dataclass
class RunReport:
    """What came out. Times are in milliseconds; ``latencies`` has one entry for each execution."""

    model_path: str
    method: str
    inputs: list[str]
    outputs: list[Any]
    load_ms: float
    latencies: list[float]
    files: list[str] = field(default_factory=list)
    #: The likeliest classes of each row of the output ``named``, when labels were given.
    named: int = 0
    guesses: list[list[Guess]] = field(default_factory=list)

    def latency(self) -> dict[str, float]:
        """Minimum, median and 95th percentile (nearest rank)."""
        times = sorted(self.latencies)
        return {
            "min": times[0],
            "median": float(np.median(times)),
            "p95": times[max(0, math.ceil(0.95 * len(times)) - 1)],
        }


def split_names(text: str | None) -> list[str]:
    """File names that stand in one option, separated by commas; none where there is no text.

    Raises InputError for a name that is empty.
    """
    names = [name.strip() for name in text.split(",")] if text else []
    if "" in names:
        raise InputError(f"{text!r} has an empty name in it; give names with a comma between two")
    return names


def run_file(request: RunRequest) -> RunReport:
    """Load a program, run it ``executions`` times, write the last outputs to ``output_file`` and
    the calls to ``etdump``.

    Raises InputError, InvalidProgramError, UnsupportedError or BackendUnavailableError.
    """
    if request.executions < 1:
        raise InputError(f"num_executions is {request.executions}, it must be at least 1")
    names = [] if request.labels is None else read_labels(request.labels)
    if request.etdump is not None:
        from penstock.cli.output import writable

        writable(Path(request.etdump), "--etdump_path")
    start = time.perf_counter()
    program = load(
        request.model_path,
        data=request.data_paths,
        threads=request.threads,
        engine=request.engine,
        profile=request.etdump is not None,
    )
    name = request.method_name
    if request.delegates is not None:
        _refuse_backends(program, request)
    method = program.method(name)
    load_ms = (time.perf_counter() - start) * 1e3
    specs = method.inputs
    if request.inputs:
        inputs = read_inputs(request.inputs, specs, normalization_of(program))
    else:
        inputs = ones(specs)
    latencies = []
    outputs: list[Any] = []
    profiles = []
    for _ in range(request.executions):
        start = time.perf_counter()
        outputs = method.run(inputs)
        latencies.append((time.perf_counter() - start) * 1e3)
        if request.etdump is not None:
            profiles.append(method.profile(reset=True))
    report = RunReport(
        request.model_path,
        method.name,
        [str(spec) for spec in method.inputs],
        outputs,
        load_ms,
        latencies,
    )
    if names:
        report.named, report.guesses = guesses(outputs, names)
    if request.output_file:
        report.files = write_outputs(Path(request.output_file), outputs)
    if request.etdump is not None:
        _write_etdump(Path(request.etdump), program, report, profiles)
    return report


def _write_etdump(
    path: Path, program: LoadedProgram, report: RunReport, profiles: Sequence[Profile]
) -> None:
    from penstock.tools.profiling.etdump import etdump_of
    from penstock.tools.profiling.measure import Call

    calls = [
        Call(milliseconds / 1e3, profile)
        for milliseconds, profile in zip(report.latencies, profiles, strict=True)
    ]
    method = program.program.method(report.method)
    assert method is not None
    data = etdump_of(method, calls)
    write_file(path, lambda file: file.write(data))
    report.files.append(str(path))


def _refuse_backends(program: LoadedProgram, request: RunRequest) -> None:
    known = request.delegates or frozenset()
    missing = [id for id in program.backends(request.method_name) if id not in known]
    if missing:
        advice = (
            f"run it with: xnn_executor_runner --model_path {request.model_path}"
            if missing == [XNNPACK_BACKEND]
            else "no runner of Penstock has it"
        )
        raise UnsupportedError(
            f"{request.model_path} needs the backend {listed(missing)},"
            f" this runner has {listed(sorted(known))}; {advice}"
        )


def write_outputs(path: Path, outputs: Sequence[Any]) -> list[str]:
    """Write outputs to files and return their names.

    ``name.npz`` holds all of them as ``output_0``, ``output_1`` ...; ``name.npy`` the only one
    (``name-0.npy`` ... if there are several); any other name is that of raw files
    ``name-0.bin``, ``name-1.bin`` ... in the outputs' memory layout. Each file appears whole or
    not at all. Raises InputError if they cannot be written.
    """
    arrays = [np.asarray(output) for output in outputs]
    if path.suffix == ".npz":
        named: dict[str, Any] = {f"output_{i}": array for i, array in enumerate(arrays)}
        write_file(path, lambda file: np.savez(file, **named))
        return [str(path)]
    names = []
    for index, array in enumerate(arrays):
        if path.suffix == ".npy":
            single = path if len(arrays) == 1 else path.with_name(f"{path.stem}-{index}.npy")
            write_file(single, partial(_save, array=array))
        else:
            single = path.with_name(f"{path.name}-{index}.bin")
            write_file(single, partial(_save_raw, array=array))
        names.append(str(single))
    return names


# NumPy writes to a real file by itself, and does not say why it could not.
def _save(file: IO[bytes], array: np.ndarray) -> None:
    np.save(SimpleNamespace(write=file.write), array)


def _save_raw(file: IO[bytes], array: np.ndarray) -> None:
    file.write(array.ravel(order="K").view(np.uint8).data)


def show(report: RunReport, *, print_output: str = "summary", quiet: bool = False) -> None:
    """Print a report for people: outputs, files, and latency if there were several executions."""
    if print_output not in PRINT_CHOICES:
        raise InputError(f"print_output is {print_output!r}, it must be none, summary or all")
    if print_output != "none":
        for index, output in enumerate(report.outputs):
            print(f"output {index}: {_summary(output)}")
            if print_output == "all" and isinstance(output, np.ndarray):
                with np.printoptions(threshold=output.size + 1, linewidth=100):
                    print(output)
    for row, found in enumerate(report.guesses):
        which = f", row {row}" if len(report.guesses) > 1 else ""
        print(f"output {report.named}{which}, likeliest classes:")
        for guess in found:
            print(f"  {guess.probability:.3f}  {guess.name}")
    if quiet:
        return
    for name in report.files:
        print(f"written: {printable(name)}")
    if len(report.latencies) > 1:
        latency = ", ".join(f"{name} {value:.3f} ms" for name, value in report.latency().items())
        print(f"latency of {len(report.latencies)} executions: {latency}")


def show_json(report: RunReport, *, print_output: str = "summary") -> None:
    """Print a report as one JSON object."""
    result: dict[str, Any] = {
        "model_path": report.model_path,
        "method": report.method,
        "inputs": report.inputs,
        "load_ms": round(report.load_ms, 3),
        "executions": len(report.latencies),
        "latency_ms": {name: round(value, 4) for name, value in report.latency().items()},
        "files": report.files,
        "outputs": [_as_json(output, print_output) for output in report.outputs],
    }
    if report.guesses:
        rows = [
            [{**asdict(guess), "probability": _number(guess.probability)} for guess in found]
            for found in report.guesses
        ]
        result["labels"] = {"output": report.named, "rows": rows}
    print(json.dumps(result, indent=2))


def _statistics(array: np.ndarray) -> dict[str, float]:
    numbers = array.astype(np.float64)
    return {"min": numbers.min(), "max": numbers.max(), "mean": numbers.mean()}


def _summary(output: Any) -> str:
    if not isinstance(output, np.ndarray):
        return repr(output)
    text = f"{output.dtype} {list(output.shape)}"
    if output.size == 0:
        return f"{text}, empty"
    if output.size == 1:
        return f"{text}, {output.item()}"
    statistics = ", ".join(f"{name} {value:.6g}" for name, value in _statistics(output).items())
    first = " ".join(f"{float(value):.6g}" for value in output.flat[:5])
    text += f", {statistics}, first {first}"
    if output.ndim == 2 and output.shape[0] == 1 and output.shape[1] > 10:
        top = np.argsort(-output[0].astype(np.float64), kind="stable")[:5]
        text += f", top 5 {' '.join(map(str, top))}"
    return text


def _as_json(output: Any, print_output: str) -> Any:
    if not isinstance(output, np.ndarray):
        return output
    entry: dict[str, Any] = {"dtype": str(output.dtype), "shape": list(output.shape)}
    if print_output != "none" and output.size:
        entry.update({name: _number(value) for name, value in _statistics(output).items()})
    if print_output == "all":
        wide = output if output.dtype.kind in "iub" else output.astype(np.float64)
        entry["values"] = [_number(value) for value in wide.ravel().tolist()]
    return entry


def _number(value: Any) -> Any:
    """JSON has no NaN and no infinities; they are given as text."""
    if isinstance(value, (bool, int)):
        return value
    return float(value) if math.isfinite(value) else str(float(value))

"""Every operator with its dimensions declared dynamic, at several sizes: eager's answers, or an
error in words when it is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_programs import FUNCTIONS, Exported, Outcome, compare, exported, one_by_one, tried
from operator_cases import Case
from sweep_cases import first_cases, named_cases

torch.set_num_threads(1)

#: Operators that eager PyTorch runs beyond the end of memory where sizes do not go together, and
#: torch.export does not see that they must.
UNCHECKED = {"slice_scatter"}

#: Runs every program of a folder on the inputs of several files: NAME.pte, NAME.NUMBER.in.npz.
STOCK = """
import pathlib, sys
import numpy as np, torch
import executorch.kernels.quantized
from executorch.runtime import Runtime
for program in sorted(pathlib.Path(sys.argv[1]).glob("*.pte")):
    method = Runtime.get().load_program(program).load_method("forward")
    for path in sorted(program.parent.glob(f"{program.stem}.*.in.npz")):
        print(path.stem, flush=True)
        try:
            outputs = method.execute([torch.from_numpy(array) for array in np.load(path).values()])
        except RuntimeError:
            continue  # the answer is missing
        np.savez(str(path).replace(".in.npz", ".out"), *[o.numpy() for o in outputs])
"""


def programs(case: Case) -> list[Exported]:
    """All dimensions dynamic, and each one alone."""
    everything = exported(case)
    if everything is None or case.entry in UNCHECKED:
        return []
    return [everything, *one_by_one(everything)]


FUNCTION_CASES = [(case.entry, case) for case in FUNCTIONS]
#: Every ninth entry and every fourth function; another selection whenever the table grows.
FAST = [*first_cases()[::9], *FUNCTION_CASES[::4]]


@pytest.mark.parametrize(("name", "case"), FAST, ids=[name for name, _ in FAST])
def test_all_dimensions(name: str, case: Case) -> None:
    found = exported(case)
    if found is not None:
        tried(found)


WHOLE = [*named_cases(), *FUNCTION_CASES]


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "case"), WHOLE, ids=[name for name, _ in WHOLE])
def test_every_dimension(name: str, case: Case, record_property: object) -> None:
    for number, found in enumerate(programs(case)):
        outcome = tried(found)
        assert callable(record_property)
        which = "one dimension dynamic" if number else "all dimensions dynamic"
        reason = outcome.refused.split(":")[0]
        record_property(which, f"refused: {reason}" if reason else outcome.where)


@pytest.mark.sweep
def test_on_the_stock_runtime(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    outcomes: dict[str, tuple[Case, Outcome]] = {}
    for case in (*(case for _, case in first_cases()), *FUNCTIONS):
        found = exported(case) if case.entry not in UNCHECKED else None
        if found is not None and not (outcome := tried(found)).refused:
            outcomes[case.entry] = case, outcome
    wrong = differences(tmp_path, outcomes)
    assert not wrong, "\n".join(wrong)


def differences(folder: Path, outcomes: dict[str, tuple[Case, Outcome]]) -> list[str]:
    """Where the stock runtime answers otherwise than eager PyTorch."""
    for name, (_, outcome) in outcomes.items():
        (folder / f"{name}.pte").write_bytes(outcome.file)
        for number, (inputs, _) in enumerate(outcome.calls):
            np.savez(folder / f"{name}.{number}.in.npz", *inputs)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOCK, str(folder)],
        capture_output=True, text=True, check=False, timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or ["the start"])[-1]
    assert done.returncode == 0, f"ended at {last}: {done.stderr[-800:]}"
    wrong: list[str] = []
    for name, (case, outcome) in outcomes.items():
        for number, (_, expected) in enumerate(outcome.calls):
            answer = folder / f"{name}.{number}.out.npz"
            if not answer.exists():
                wrong.append(f"{name}: no answer to call {number}")
                continue
            theirs = list(np.load(answer).values())
            try:
                compare(theirs, expected, case.tolerance, f"of call {number}")
            except AssertionError as error:
                wrong.append(f"{name}: {str(error).splitlines()[0]}")
    return wrong

"""No operator brings constants that grow with the square of a size.

Each case of the table is compiled with one dimension after the other stretched to some thousand
indices: a table of both sizes would take tens of megabytes, of which the compile says that it made
them.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from operator_cases import Case
from operator_harness import as_module
from sweep_cases import named_cases

import penstock
from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import Shared

LONG = 3000
#: Each index of a sequence, or of a window, is nodes of its own.
UNROLLED = {
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell",
    "rnn_relu_cell", "split",
}  # fmt: skip
#: A constant mask as large as the tensor that it is for, the scores where those are causal.
AS_LARGE_AS_DATA = {"triangle", "scaled_dot_product_attention"}


def stretched(case: Case) -> Iterator[tuple[torch.Tensor, ...]]:
    """The inputs with each size of the first one stretched, wherever it occurs."""
    for dim, size in enumerate(case.inputs[0].shape):
        times = -(-LONG // max(size, 1))
        longer = []
        for tensor in case.inputs:
            repeats = [
                times if other == size and place - tensor.dim() == dim - case.inputs[0].dim() else 1
                for place, other in enumerate(tensor.shape)
            ]
            longer.append(tensor.repeat(repeats) if tensor.dim() else tensor)
        if sum(tensor.numel() for tensor in longer) < 2**22:
            yield tuple(longer)


def check(name: str, case: Case) -> int:
    """How many stretched inputs eager takes; each is compiled without a notice."""
    module, compiled = as_module(case.function), 0
    for inputs in stretched(case):
        try:
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):
                module(*inputs)
        except (RuntimeError, IndexError, ValueError):
            continue
        lowered = penstock.lower(module, inputs)
        shapes = [tuple(tensor.shape) for tensor in inputs]
        assert not lowered.notices, f"{name} {shapes}: {lowered.notices[0]}"
        compiled += 1
    return compiled


def _moves(case: Case) -> bool:
    (entry,) = (entry for entry in registry.entries() if entry.name == case.entry)
    return isinstance(entry.quantization, Shared)


def _skipped(case: Case) -> bool:
    return not case.inputs or case.entry in UNROLLED | AS_LARGE_AS_DATA


def test_movement_stays_small() -> None:
    compiled = 0
    seen: set[str] = set()
    for name, case in named_cases():
        if case.entry not in seen and _moves(case) and not _skipped(case):
            seen.add(case.entry)
            compiled += check(name, case)
    assert compiled > 2 * len(seen)


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "case"), named_cases(), ids=lambda item: str(item)[:40])
def test_all_operators_stay_small(name: str, case: Case) -> None:
    if not _skipped(case):
        check(name, case)


#: Compiles what would be tables of some hundred GB, and says how much memory that took.
HUGE = """
import resource, torch, penstock
from torch.nn import functional as F
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
    def forward(self, x):
        return self.function(x)
small = torch.randn(1, 1, 480)
programs = [
    lambda x: F.pad(x, (200, 200), mode="reflect"),
    lambda x: x.flip(-1),
    lambda x: x.roll(12345, -1),
    lambda x: x[..., torch.arange(x.shape[-1] - 1, -1, -3)],
    lambda x: F.interpolate(x, scale_factor=1.5),
    lambda x: F.interpolate(x, scale_factor=1.5, mode="linear"),
    lambda x: F.adaptive_avg_pool1d(x, 1999),
    lambda x: x.cumsum(-1),
    lambda x: x.unfold(-1, 400, 160) * 1.0,
]
for program in programs:
    penstock.lower(Model(program), (small,))
before = peak()
x = torch.randn(1, 1, 480_000)
for program in programs:
    lowered = penstock.lower(Model(program), (x,))
    assert not lowered.notices, lowered.notices
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units")
def test_compiling_takes_memory_in_proportion() -> None:
    found = subprocess.run(
        [sys.executable, "-c", HUGE], capture_output=True, text=True, check=False, timeout=600
    )
    assert found.returncode == 0, found.stderr[-2000:]
    # 480 000 numbers are 2 MB.
    assert int(found.stdout.split()[-1]) < 400e6

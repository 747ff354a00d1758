"""Every kernel with not-a-number, infinities, zeros and a denormal number in its float32 inputs.

The cases are those that the kernels are compared with eager by; here one value of one input at a
time is replaced. Huge finite numbers are left out: in which order sums overflow is nobody's rule.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import kernel_cases  # noqa: F401  (registers the cases)
import numpy as np
import pytest
from kernel_harness import F32, GENERATORS, Case, check

VALUES = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40)
#: Larger inputs take too long for what they add.
LARGEST_INPUT = 3000
#: A special value makes others many times what they are otherwise.
TOLERANCE = (1e-3, 1e-3)

#: Where eager itself is of two minds, and the values that show it. Its running means of infinities
#: and its vectorized gelu are not a number at some places; its convolutions do not multiply an
#: infinite weight by padding, and transforms of infinities depend on how they are factored.
EXCEPT: dict[str, tuple[float, ...]] = {
    "aten::_fft_r2c.out": (math.inf, -math.inf),
    "aten::convolution.out": (math.nan, math.inf, -math.inf),
    "aten::gelu.out": (math.inf,),
    "aten::native_layer_norm.out": (math.inf, -math.inf),
    "aten::native_group_norm.out": (math.inf, -math.inf),
}


def changed(case: Case) -> Iterator[tuple[float, Case]]:
    """The case with each value at the first, a middle and the last place of each float32 input."""
    for position, given in enumerate(case.args):
        if not isinstance(given, np.ndarray) or given.dtype != F32:
            continue
        if not 0 < given.size <= LARGEST_INPUT:
            continue
        for value in VALUES:
            for place in sorted({0, given.size // 2, given.size - 1}):
                array = np.array(given)
                array.reshape(-1)[place] = value
                args = [*case.args[:position], array, *case.args[position + 1 :]]
                yield value, replace(case, args=args, tolerance=TOLERANCE)


def compared(name: str, most: int) -> int:
    """How many changed cases of the kernel ``name`` agree with eager; fails where one does not."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    excused = {str(value) for value in EXCEPT.get(name, ())}
    floats = (case for case in GENERATORS[name](rng) if any(True for _ in changed(case)))
    count = 0
    for case in islice(floats, most):
        for value, one in changed(case):
            if str(value) not in excused:
                count += check(name, one)
    return count


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(GENERATORS)[::8])
def test_a_few_kernels(name: str) -> None:
    compared(name, 1)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")
def test_all_kernels() -> None:
    counts = {}
    wrong = []
    for name in sorted(GENERATORS):
        try:
            counts[name] = compared(name, 12)
        except AssertionError as error:
            wrong.append(f"{name}: {str(error).strip()[:300]}")
    assert not wrong, "\n".join(wrong)
    assert sum(counts.values()) > 10_000
    assert set(EXCEPT) <= set(counts)

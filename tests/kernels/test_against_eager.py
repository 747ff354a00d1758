"""Every ATen kernel against eager PyTorch, over generated arguments."""

from __future__ import annotations

import zlib

import kernel_cases  # noqa: F401  (registers the cases)
import numpy as np
import pytest
from kernel_harness import GENERATORS, check


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_equals_eager(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    compared = sum(check(name, case) for case in GENERATORS[name](rng))
    assert compared >= 2, f"eager refused nearly all arguments of {name}"

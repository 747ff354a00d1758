"""Every ATen kernel against eager PyTorch, over generated arguments."""

from __future__ import annotations

import zlib

# These register their cases.
import elementwise_cases  # noqa: F401
import indexing_cases  # noqa: F401
import kernel_shape_cases  # noqa: F401
import numpy as np
import pytest
import reduction_cases  # noqa: F401
import spatial_cases  # noqa: F401
from kernel_harness import GENERATORS, check


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_equals_eager(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    compared = sum(check(name, case) for case in GENERATORS[name](rng))
    assert compared >= 2, f"eager refused nearly all arguments of {name}"

"""The quantized operators against the stock package's kernels, bit for bit.

The stock kernels run in a process of their own, on the same generated cases.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import quantized_cases
from kernel_harness import call, stored

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="needs the stock executorch package"
)

#: Sums of products, whose order of addition is open.
INEXACT = ("mixed_mm", "mixed_linear")
OPERATORS = sorted({name for name, _, _ in quantized_cases.cases()})


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    path = tmp_path_factory.mktemp("stock") / "quantized.npz"
    script = Path(quantized_cases.__file__)
    subprocess.run(
        [sys.executable, str(script), str(path)], check=True, capture_output=True, cwd=path.parent
    )
    return dict(np.load(path))


@pytest.mark.parametrize("operator", OPERATORS)
def test_equals_stock(operator: str, stock: Mapping[str, np.ndarray]) -> None:
    compared = 0
    for number, (name, args, outs) in enumerate(quantized_cases.cases()):
        if name != operator or f"{number}-0" not in stock:
            continue
        buffers = [np.zeros(shape, kind) for shape, kind in outs]
        results = call(name, args, buffers, listed=False)
        for i, (result, buffer) in enumerate(zip(results, buffers, strict=True)):
            got, wanted = stored(result, buffer), stock[f"{number}-{i}"]
            what = f"{name} {[a if np.isscalar(a) else getattr(a, 'shape', a) for a in args]}"
            if any(word in name for word in INEXACT):
                half = any(getattr(a, "dtype", None) == np.float16 for a in args)
                relative, absolute = (1e-2, 0.3) if half else (1e-5, 1e-5)
                np.testing.assert_allclose(got, wanted, relative, absolute, err_msg=what)
            else:
                np.testing.assert_array_equal(got, wanted, err_msg=what)
        compared += 1
    assert compared, f"the stock library refused all arguments of {operator}"

"""The stock ExecuTorch runtime, of the ``executorch`` package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import executorch.kernels.quantized  # noqa: F401  (registers the quantized operators)
import numpy as np
import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime

from penstock.tools.bench.worker import Run


class ExecuTorch:
    def __init__(self, threads: int) -> None:
        _unsafe_reset_threadpool(threads)
        torch.set_num_threads(1)
        self._runtime = Runtime.get()

    def load(self, path: str, data: Sequence[str]) -> Run:
        if len(data) > 1:
            raise ValueError(f"ExecuTorch's Python package takes one data file, not {len(data)}")
        program = self._runtime.load_program(path, data_path=next(iter(data), None))
        names = program.method_names
        method = program.load_method("forward" if "forward" in names else min(names))
        return lambda inputs: method.execute(inputs)

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        return [torch.from_numpy(i) if isinstance(i, np.ndarray) else i for i in inputs]

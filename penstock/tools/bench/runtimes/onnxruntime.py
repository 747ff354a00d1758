"""ONNX Runtime; takes ``.onnx`` files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from penstock.tools.bench.worker import Run


class OnnxRuntime:
    def __init__(self, threads: int) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1

    def load(self, path: str, data: Sequence[str]) -> Run:
        session = onnxruntime.InferenceSession(
            path, self._options, providers=["CPUExecutionProvider"]
        )
        names = [item.name for item in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        return [value for value in inputs if isinstance(value, np.ndarray)]

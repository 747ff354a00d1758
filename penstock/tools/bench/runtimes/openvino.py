"""OpenVINO; takes ``.onnx`` files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino

from penstock.tools.bench.worker import Run


class OpenVino:
    def __init__(self, threads: int) -> None:
        self._core = openvino.Core()
        self._properties = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Not bfloat16, where the processor has that.
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def load(self, path: str, data: Sequence[str]) -> Run:
        request = self._core.compile_model(path, "CPU", self._properties).create_infer_request()
        return lambda inputs: list(request.infer(inputs, share_inputs=True).values())

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        return [value for value in inputs if isinstance(value, np.ndarray)]

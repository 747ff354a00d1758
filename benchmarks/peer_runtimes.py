"""ONNX Runtime and OpenVINO behind the interface of ``benchmarks.worker``'s runtimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Run = Callable[[Sequence[Any]], Sequence[Any]]


class OnnxRuntime:
    def __init__(self, threads: int) -> None:
        import onnxruntime

        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession

    def load(self, path: str) -> Run:
        session = self._session(path, self._options, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    def given(self, inputs: Sequence[np.ndarray]) -> list[Any]:
        return list(inputs)


class OpenVino:
    def __init__(self, threads: int) -> None:
        import openvino

        self._core = openvino.Core()
        self._properties = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Not bfloat16, where the processor has that.
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def load(self, path: str) -> Run:
        request = self._core.compile_model(path, "CPU", self._properties).create_infer_request()
        return lambda inputs: list(request.infer(inputs, share_inputs=True).values())

    def given(self, inputs: Sequence[np.ndarray]) -> list[Any]:
        return list(inputs)


RUNTIMES: dict[str, Callable[[int], Any]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}

"""Writes one model of the zoo as ONNX, in a process of its own.

    python -m benchmarks.onnx_flow MODEL fp32|q8 OUTPUT.onnx

Quantized by ONNX Runtime's own tools: static per-channel QDQ with the calibration data that the
other flows get, or dynamic per-channel where the zoo says so.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.flow import CALIBRATION_BATCHES


def main(name: str, precision: str, output: Path) -> None:
    import torch

    from penstock import zoo

    torch.set_num_threads(1)
    model = zoo.create(name)
    if precision == "fp32":
        _export(model, output)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        _export(model, plain)
        _forget_shapes(plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        if model.quantization == "dynamic_per_channel":
            quantize_dynamic(prepared, output, per_channel=True, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                prepared, output, _Batches(prepared, model), per_channel=True,
                weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            )  # fmt: skip


def _export(model: Any, output: Path) -> None:
    import torch

    program = torch.onnx.export(
        model.module, model.args, kwargs=model.kwargs, dynamo=True, opset_version=18, verbose=False
    )
    assert program is not None
    program.optimize()
    program.save(output)


def _forget_shapes(path: Path) -> None:
    """Drops the shapes of intermediate results: the exporter's are not all true, and ONNX Runtime's
    tools infer them anyway."""
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)


class _Batches:
    """Calibration data as ONNX Runtime reads it."""

    def __init__(self, path: Path, model: Any) -> None:
        import onnx

        graph = onnx.load(path, load_external_data=False).graph
        names = [item.name for item in graph.input]
        self._batches: Iterator[dict[str, Any]] = (
            dict(zip(names, (tensor.numpy() for tensor in batch), strict=True))
            for batch in model.calibration(CALIBRATION_BATCHES)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

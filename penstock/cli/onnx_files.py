"""A model as ONNX, for the runtimes that read that; quantized by ONNX Runtime's own tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from penstock.cli.sources import Source
from penstock.errors import InputError

#: Opset of the files.
OPSET = 18


def write_onnx(source: Source, output: Path, precision: str, batches: Iterable[Any]) -> None:
    """Writes ``source`` as ``float``, ``static int8`` (per channel, QDQ, calibrated on
    ``batches``) or ``dynamic int8`` (per channel)."""
    if precision == "float":
        _export(source, output)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        _export(source, plain)
        _forget_shapes(plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        if precision == "dynamic int8":
            quantize_dynamic(prepared, output, per_channel=True, weight_type=QuantType.QInt8)
        elif precision == "static int8":
            quantize_static(
                prepared, output, _Batches(prepared, batches), per_channel=True,
                weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            )  # fmt: skip
        else:
            raise InputError(f"no tool makes ONNX files in {precision}")


def _export(source: Source, output: Path) -> None:
    program = torch.onnx.export(
        source.model, source.args, kwargs=source.kwargs, dynamo=True, opset_version=OPSET,
        verbose=False,
    )  # fmt: skip
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

    def __init__(self, path: Path, batches: Iterable[Any]) -> None:
        import onnx

        graph = onnx.load(path, load_external_data=False).graph
        names = [item.name for item in graph.input]
        self._batches: Iterator[dict[str, Any]] = (
            dict(zip(names, (tensor.numpy() for tensor in batch), strict=True)) for batch in batches
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)

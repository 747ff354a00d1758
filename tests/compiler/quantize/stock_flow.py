"""Runs in a process of its own: the stock flow's q8 of models, as eager PyTorch computes it.

usage: stock_flow.py JOB.pt RESULT.pt

JOB holds a list of ``{"model": path of a .pt2, "scheme": str, "calibration": [batch], "inputs":
[batch]}``, a batch being a tensor or a tuple of them; RESULT gets a list of the outputs of each:
one tensor of all batches, or for a model of several results a list of results for each batch. It
is ``None`` where the stock flow fails and ``may_fail`` is set.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def outputs(job: dict[str, Any]) -> Any:
    try:
        return _outputs(job)
    except Exception:
        if job.get("may_fail"):
            return None
        raise


def _outputs(job: dict[str, Any]) -> Any:
    config = get_symmetric_quantization_config(is_per_channel=job["scheme"] == "static_per_channel")
    quantizer = XNNPACKQuantizer().set_global(config)
    prepared = prepare_pt2e(torch.export.load(job["model"]).module(), quantizer)
    with torch.no_grad():
        for batch in job["calibration"]:
            prepared(*_tuple(batch))
        converted = convert_pt2e(prepared)
        results = [converted(*_tuple(batch)) for batch in job["inputs"]]
    return torch.cat(results) if isinstance(results[0], torch.Tensor) else results


def _tuple(batch: Any) -> tuple[Any, ...]:
    return batch if isinstance(batch, tuple) else (batch,)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save([outputs(job) for job in torch.load(sys.argv[1])], sys.argv[2])

"""Runs in a process of its own: the stock flow's q8 of models, as eager PyTorch computes it.

usage: stock_flow.py JOB.pt RESULT.pt

JOB holds a list of ``{"model": path of a .pt2, "scheme": str, "calibration": [tensor], "inputs":
[tensor]}``; RESULT gets a list of the outputs of each.
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


def outputs(job: dict[str, Any]) -> torch.Tensor:
    config = get_symmetric_quantization_config(is_per_channel=job["scheme"] == "static_per_channel")
    quantizer = XNNPACKQuantizer().set_global(config)
    prepared = prepare_pt2e(torch.export.load(job["model"]).module(), quantizer)
    with torch.no_grad():
        for batch in job["calibration"]:
            prepared(batch)
        converted = convert_pt2e(prepared)
        return torch.cat([converted(batch) for batch in job["inputs"]])


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save([outputs(job) for job in torch.load(sys.argv[1])], sys.argv[2])

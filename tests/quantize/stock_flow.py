"""Runs in a process of its own: the stock flow's q8 of a model, as eager PyTorch computes it.

usage: stock_flow.py MODEL.pt2 DATA.pt SCHEME RESULT.pt

DATA holds ``{"calibration": [tensor], "inputs": [tensor]}``; RESULT gets the list of outputs.
"""

from __future__ import annotations

import sys

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def main(model: str, data: str, scheme: str, result: str) -> None:
    torch.set_num_threads(1)
    batches = torch.load(data)
    config = get_symmetric_quantization_config(is_per_channel=scheme == "static_per_channel")
    quantizer = XNNPACKQuantizer().set_global(config)
    prepared = prepare_pt2e(torch.export.load(model).module(), quantizer)
    with torch.no_grad():
        for batch in batches["calibration"]:
            prepared(batch)
        converted = convert_pt2e(prepared)
        torch.save([converted(batch) for batch in batches["inputs"]], result)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Compiles one model of the zoo by our flow or by the stock one, in a process of its own.

    python -m benchmarks.flow ours|stock MODEL fp32|q8 OUTPUT.pte
    python -m benchmarks.flow eager MODEL FOLDER

The first prints one JSON object: seconds of each stage (imports and the making of the model
apart), the number of delegated pieces and of nodes outside, and the peak memory. Both flows get the
same weights, example inputs and calibration data. The second runs eager PyTorch and writes the
inputs and outputs of a few samples to ``FOLDER/MODEL.<n>.in.npz`` and ``.out.npz``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import positionals
from penstock.tools.bench.worker import peak_kib, reset_peak

CALIBRATION_BATCHES = 16

# Samples on which answers are compared: the first ones of the calibration data.
SAMPLES = 4


def main(kind: str, name: str, precision: str, output: str) -> dict[str, Any]:
    import torch

    # Two threads of torch that wait for each other suffer most from other work on the machine.
    torch.set_num_threads(1)
    from penstock import zoo

    flow = {"ours": _ours, "stock": _stock}[kind]
    flow(zoo.create("linear"), False, None)  # what is imported or built at first use
    model = zoo.create(name)
    reset_peak()
    before = peak_kib()
    start, start_cpu = time.perf_counter(), time.process_time()
    result = flow(model, precision == "q8", Path(output))
    result["seconds"] = time.perf_counter() - start
    # What other work on the machine takes away does not count here.
    result["cpu_seconds"] = time.process_time() - start_cpu
    result["growth_kib"] = peak_kib() - before
    result["bytes"] = Path(output).stat().st_size
    return result


def _ours(model: Any, quantized: bool, output: Path | None) -> dict[str, Any]:
    import penstock
    from penstock.compiler.quantize import Quantization

    lowered = penstock.lower(
        model.module,
        model.args,
        model.kwargs,
        quantize=Quantization(scheme=model.quantization) if quantized else None,
        calibration=list(model.calibration(CALIBRATION_BATCHES)) if quantized else None,
    )
    if output is not None:
        lowered.save(output)
    return {
        "pieces": len(lowered.delegation.subgraphs),
        "delegated": len(lowered.delegation.delegated),
        "outside": len(lowered.delegation.undelegated),
        "share": lowered.delegation.share,
        "stages": lowered.timings,
    }


def _stock(model: Any, quantized: bool, output: Path | None) -> dict[str, Any]:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.configs import get_transform_passes
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    program = torch.export.export(model.module, model.args, model.kwargs, strict=False)
    if quantized:
        prepared = _stock_quantized(program.module(), model)
        program = torch.export.export(prepared, model.args, model.kwargs, strict=False)
    edge = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        transform_passes=get_transform_passes(),
        compile_config=EdgeCompileConfig(_check_ir_validity=not quantized, _skip_dim_order=True),
    )
    pieces = outside = 0
    for node in edge.exported_program().graph.nodes:
        if node.op == "call_function":
            name = str(node.target)
            pieces += "executorch_call_delegate" in name
            outside += "executorch_call_delegate" not in name and "getitem" not in name
    built = edge.to_executorch()
    if output is not None:
        with open(output, "wb") as file:
            built.write_to_file(file)
    return {"pieces": pieces, "outside": outside}


def _stock_quantized(module: Any, model: Any) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    dynamic = model.quantization == "dynamic_per_channel"
    config = get_symmetric_quantization_config(
        is_per_channel=model.quantization != "static_per_tensor", is_dynamic=dynamic
    )
    prepared = prepare_pt2e(module, XNNPACKQuantizer().set_global(config))
    for batch in model.calibration(1 if dynamic else CALIBRATION_BATCHES):
        prepared(*batch)
    return convert_pt2e(prepared)


def eager(name: str, folder: str) -> dict[str, Any]:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from penstock import zoo

    model = zoo.create(name)
    for index, batch in enumerate(model.calibration(SAMPLES)):
        with torch.no_grad():
            outputs = model.module(*batch)
        for kind, values in (("in", batch), ("out", outputs)):
            leaves = torch.utils._pytree.tree_leaves(values)
            arrays = {f"{kind}{i}": leaf.detach().numpy() for i, leaf in enumerate(leaves)}
            np.savez(Path(folder) / f"{name}.{index}.{kind}.npz", **arrays)
    return {"parameters": sum(p.numel() for p in model.module.parameters())}


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1:2] == ["eager"]:
        _, *arguments = positionals(__doc__, "eager", "model", "folder")
        found = eager(*arguments)
    else:
        found = main(*positionals(__doc__, "flow", "model", "precision", "output"))
    out.write(json.dumps(found) + "\n")

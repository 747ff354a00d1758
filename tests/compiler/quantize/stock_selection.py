"""Runs in a process of its own: which operators the stock quantizer annotates, and how.

usage: stock_selection.py JOB.pt RESULT.pt

JOB holds ``{"model": path of a .pt2, "selections": [[(method, key, config)]]}``: methods of the
quantizer, what they name (a class by its full name) and the arguments of
``get_symmetric_quantization_config`` or ``None``. RESULT gets for each selection the form
(``static`` or ``dynamic``) of each node with a weight or two inputs that is annotated, by name.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY


def annotated(path: str, selection: list[tuple[str, Any, dict[str, Any] | None]]) -> dict[str, str]:
    quantizer = XNNPACKQuantizer()
    for method, key, arguments in selection:
        config = None if arguments is None else get_symmetric_quantization_config(**arguments)
        keys = [] if key is None else [named(key) if method != "set_module_name" else key]
        getattr(quantizer, method)(*keys, config)
    module = torch.export.load(path).module()
    module = quantizer.annotate(quantizer.transform_for_annotation(module))
    found = {}
    for node in module.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        specs = list(annotation.input_qspec_map.values()) if annotation else []
        if node.op == "call_function" and specs:
            dynamic = any(getattr(spec, "is_dynamic", False) for spec in specs)
            found[node.name] = "dynamic" if dynamic else "static"
    return found


def named(key: str) -> Any:
    """``torch.nn.modules.linear.Linear`` or ``torch.ops.aten.add.Tensor``."""
    if key.startswith("torch.ops."):
        value: Any = torch.ops
        for part in key.split(".")[2:]:
            value = getattr(value, part)
        return value
    module, _, name = key.rpartition(".")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    job = torch.load(sys.argv[1])
    torch.save([annotated(job["model"], one) for one in job["selections"]], sys.argv[2])

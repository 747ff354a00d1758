"""Remakes the ``.pte`` files here with ExecuTorch's own flow, executorch 1.5.1:
``python tests/formats/stock/make.py``.

Beside each file an ``.npz``: for each run of a method ``method|run|in0`` ... and the stock
runtime's ``method|run|out0`` ... (in ``external``, ``in0`` and ``out0`` ... of
``forward``). The outputs of a model with mutable buffers are those of the first run after loading.
"""

from __future__ import annotations

import sys
from pathlib import Path

import executorch.kernels.quantized  # noqa: F401  registers the quantized kernels
import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import (
    EdgeCompileConfig,
    ExecutorchBackendConfig,
    to_edge,
    to_edge_transform_and_lower,
)
from executorch.exir.passes.external_constants_pass import (
    delegate_external_constants_pass_unlifted,
)
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from executorch.exir.passes.quant_fusion_pass import QuantFusionPass
from executorch.extension.pybindings.portable_lib import _load_for_executorch
from executorch.runtime import Runtime
from torch.export import Dim, export
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

HERE = Path(__file__).parent


class Image(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = torch.nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.nn.functional.relu6(self.depthwise(x))
        return self.last(x.mean((2, 3)))


class Add(torch.nn.Module):
    def forward(self, x, y):
        return (x + y) + x


class Rows(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(16, 32)
        self.b = torch.nn.Linear(32, 8)

    def forward(self, x):
        return torch.softmax(self.b(torch.tanh(self.a(x))), -1), x.flatten()


class Partly(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(16, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.b = torch.nn.Linear(32, 8)

    def forward(self, x):
        y = self.b(self.norm(torch.relu(self.a(x))))
        return {"y": y, "top": tuple(torch.topk(torch.cumsum(y, -1), 3))}


class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("state", torch.arange(4, dtype=torch.float32))
        self.register_buffer("zero", torch.zeros(4))
        self.w = torch.nn.Linear(4, 4)

    def forward(self, x):
        self.state.add_(x)
        self.zero.add_(self.state)
        return self.w(self.state) + self.zero


class Choice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Linear(4, 4)

    def forward(self, p, x):
        y = torch.cond(p, lambda x: x + 1, lambda x: x * 2 - 3, (x,))
        return self.w(y) + y


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Linear(8, 8)
        self.v = torch.nn.Linear(8, 4)

    def encode(self, x):
        return torch.relu(self.w(x))

    def forward(self, x):
        return self.v(torch.relu(self.w(x)))


class Encode(torch.nn.Module):
    def __init__(self, two):
        super().__init__()
        self.w = two.w

    def forward(self, x):
        return torch.relu(self.w(x))


class Nested(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("index", torch.tensor([0, 2]))

    def forward(self, d, pair):
        a, (b, c) = d["a"], pair
        s = torch.cat([torch.cat([a, b, a], 1)[:, self.index], b], 1)
        g = torch.nn.functional.gelu(s, approximate="tanh")
        halves = {"k": torch.div(c, 2, rounding_mode="floor"), "b": c > 1}
        return [g, halves], (a.to(torch.float64).sum((0, 1)), a.half(), c.to(torch.uint8))


def lower(model, delegate=True, skip_dim_order=True, **config):
    """``model``: an exported program, or several by method name."""
    partitioner = [XnnpackPartitioner()] if delegate else []
    edge = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=skip_dim_order)
    return to_edge_transform_and_lower(
        model, partitioner=partitioner, compile_config=edge, **config
    )


def exported(module, args, shapes=None):
    return export(module, args, dynamic_shapes=shapes, strict=False)


def quantized(module, args, shapes=None, **config):
    module = exported(module, args, shapes).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(**config))
    module = prepare_pt2e(module, quantizer)
    module(*args)
    return exported(convert_pt2e(module), args, shapes)


def save(name, edge, runs, **config):
    """``runs``: (method, arguments)."""
    path = HERE / f"{name}.pte"
    with path.open("wb") as file:
        edge.to_executorch(config=ExecutorchBackendConfig(**config)).write_to_file(file)
    record = {}
    for number, (method, args) in enumerate(runs):
        flat = torch.utils._pytree.tree_leaves(args)
        results = Runtime.get().load_program(path).load_method(method).execute(flat)
        for kind, values in (("in", flat), ("out", results)):
            for index, value in enumerate(values):
                record[f"{method}|{number}|{kind}{index}"] = np.asarray(value)
    np.savez_compressed(HERE / f"{name}.npz", **record)
    print(path.name, path.stat().st_size)


def save_external(name, edge, args):
    """``external/NAME.pte`` and ``.ptd``: the weights in a data file of their own."""
    folder = HERE / "external"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.pte"
    program = edge.to_executorch(ExecutorchBackendConfig(external_constants=lambda node: name))
    with path.open("wb") as file:
        program.write_to_file(file)
    program.write_tensor_data_to_file(folder)
    outputs = _load_for_executorch(str(path), str(path.with_suffix(".ptd"))).forward(list(args))
    record = {f"in{i}": value for i, value in enumerate(args)}
    record.update((f"out{i}", value) for i, value in enumerate(outputs))
    np.savez_compressed(folder / f"{name}.npz", **record)


def main():
    torch.manual_seed(0)
    image = (torch.randn(1, 3, 16, 16),)
    net = Image().eval()
    save("image_fp32", lower(exported(net, image)), [("forward", image)])
    static = quantized(net, image, is_per_channel=True)
    save("image_q8", lower(static), [("forward", image)])
    save(
        "image_q8_inline",
        lower(static),
        [("forward", image)],
        extract_delegate_segments=False,
    )
    pair = (torch.randn(2, 5), torch.randn(2, 5))
    tensorwise = quantized(Add().eval(), pair, is_per_channel=False)
    edge = to_edge(tensorwise, compile_config=EdgeCompileConfig(_check_ir_validity=False))
    edge = edge.transform([QuantFusionPass(_fix_node_meta_val=True)])
    save("add_q8_undelegated", edge, [("forward", pair)])

    rows = Dim("rows", min=1, max=10)
    many = [("forward", (torch.randn(n, 16),)) for n in (3, 10, 1)]
    net = Rows().eval()
    edge = lower(exported(net, many[0][1], ({0: rows},)))
    save("rows_inline", edge, many, extract_delegate_segments=False)
    edge = lower(quantized(net, many[0][1], ({0: rows},), is_per_channel=True, is_dynamic=True))
    save("rows_dynamic_q8", edge, many)

    partly = Partly().eval()
    args = (torch.randn(2, 16),)
    save("partly", lower(exported(partly, args)), [("forward", args)])
    save_external("kernels", lower(exported(partly, args), delegate=False), args)
    tagged = exported(partly, args).module()
    delegate_external_constants_pass_unlifted(tagged, gen_tag_fn=lambda node: "partly")
    save_external("partly", lower(exported(tagged, args)), args)

    args = (torch.randn(4),)
    edge = lower(exported(Counter().eval(), args), delegate=False)
    save("mutable", edge, [("forward", args)], passes=[InitializedMutableBufferPass(["state"])])

    x = torch.randn(2, 4)
    runs = [("forward", (torch.tensor(flag), x)) for flag in (True, False)]
    save("choice", lower(exported(Choice().eval(), runs[0][1])), runs)

    two, args = Two().eval(), (torch.randn(3, 8),)
    methods = {"forward": exported(two, args), "encode": exported(Encode(two).eval(), args)}
    edge = lower(methods, constant_methods={"size": 8, "name": "two"})
    save("two_methods", edge, [("forward", args), ("encode", args), ("size", ())])

    args = ({"a": torch.randn(2, 3)}, (torch.randn(2, 3), torch.arange(-2, 4)))
    edge = lower(exported(Nested().eval(), args), delegate=False, skip_dim_order=False)
    save("nested", edge, [("forward", args)])


if __name__ == "__main__":
    sys.exit(main())

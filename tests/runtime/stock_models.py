"""Makes small programs with the stock flow and runs them on the stock runtime.

Run in a process of its own (``python stock_models.py DIRECTORY``): for each model a ``NAME.pte``
and a ``NAME.npz`` with the arrays ``METHOD-RUN-in0`` ..., ``METHOD-RUN-out0`` ... of several runs,
made one after the other on one loaded method.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig
from executorch.exir import to_edge_transform_and_lower as lower
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from executorch.runtime import Runtime
from torch import nn
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


class Partly(nn.Module):
    """Linear and relu delegated; layer_norm, cumsum and topk outside; nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8)

    def forward(self, x):
        y = self.b(self.n(torch.relu(self.a(x))))
        z, i = torch.topk(torch.cumsum(y, -1), 3)
        return {"y": y, "sorted": (z, i)}


class Dynamic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 8)

    def forward(self, x):
        return torch.softmax(self.b(torch.tanh(self.a(x))), -1), x.flatten()


class Counter(nn.Module):
    """Two mutable buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.arange(4, dtype=torch.float32))
        self.register_buffer("zero", torch.zeros(4))
        self.w = nn.Linear(4, 4)

    def forward(self, x):
        self.state.add_(x)
        self.zero.add_(self.state)
        return self.w(self.state) + self.zero


class Cond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(4, 4)

    def forward(self, p, x):
        y = torch.cond(p, lambda x: x + 1, lambda x: x * 2 - 3, (x,))
        return self.w(y) + y


class Mapped(nn.Module):
    def forward(self, xs, y):
        from functorch.experimental.control_flow import map as map_rows

        return map_rows(lambda x, y: x + y, xs, y)


class Scanned(nn.Module):
    """Rows one after the other, and for each of them a branch."""

    def forward(self, x):
        from functorch.experimental.control_flow import map as map_rows
        from torch._higher_order_ops.scan import scan

        carry, rows = scan(lambda c, y: (c * 0.5 + y, c + y), torch.zeros(4), x)
        chosen = map_rows(
            lambda y: torch.cond(y.sum() > 0, lambda y: y + 1, lambda y: y * 2, (y,)), rows
        )
        return carry, rows, chosen


class Writer(nn.Module):
    """Writes to inputs, through a view too."""

    def forward(self, x, step, y):
        x[0] = y
        step.add_(1)
        return {"sum": x + step, "y": y * 2}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Linear(8, 8), nn.Linear(8, 4)

    def encode(self, x):
        return torch.relu(self.w(x))

    def forward(self, x):
        return self.v(torch.relu(self.w(x)))


class Nested(nn.Module):
    """Nested and keyword inputs, views, several dtypes."""

    def forward(self, d, pair, *, mask):
        a, (b, c) = d["a"], pair
        s = torch.cat([a, b], 1).reshape(-1)
        return [s, {"k": c // 2, "b": c > 1}], (s.view(3, -1) * 2, a.half(), mask.to(torch.uint8))


class Pool(nn.Module):
    """An int64 output, from XNNPACK where it takes the node."""

    def forward(self, x):
        return nn.functional.max_pool2d(torch.relu(x), 2), torch.argmax(x, 1)


class Number(nn.Module):
    """One that the delegate declares with a dimension."""

    def forward(self, x):
        return x.reshape(1).relu().reshape(()).exp()


class Numbers(nn.Module):
    """Tensors without dimensions go into a delegate and come out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(4, 4)

    def forward(self, x, s):
        t = torch.exp(s) * 0.5
        return self.w(x) * t, t


class Spectrum(nn.Module):
    """Complex tensors between kernels, and out of the program."""

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        whole = torch.cat([spectrum * spectrum, spectrum + spectrum], 1)
        return spectrum, torch.view_as_real(whole), whole.abs(), torch.fft.irfft(spectrum)


class Filter(nn.Module):
    """A complex input and a complex constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", torch.randn(2, 5, dtype=torch.complex64))

    def forward(self, z):
        return z * self.filter - z, torch.sum(z, 1), z / self.filter


CONFIG = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
DIMENSION_ORDER = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=False)


def save(directory: Path, name: str, edge, runs, passes=()) -> None:
    """``runs``: (method, args, kwargs), in order, on one loaded instance of each method."""
    path = directory / f"{name}.pte"
    with open(path, "wb") as file:
        edge.to_executorch(ExecutorchBackendConfig(passes=list(passes))).write_to_file(file)
    program = Runtime.get().load_program(path)
    methods = {method: program.load_method(method) for method, _, _ in runs}
    record = {}
    for number, (method, args, kwargs) in enumerate(runs):
        flat = tree_leaves((args, kwargs))
        outputs = methods[method].execute(flat)
        for side, values in (("in", flat), ("out", outputs)):
            for index, value in enumerate(values):
                record[f"{method}-{number}-{side}{index}"] = np.array(value)
    np.savez(directory / f"{name}.npz", **record)


def main(directory: Path) -> None:
    torch.manual_seed(0)
    delegate = [XnnpackPartitioner()]

    def make(name, model, *inputs, partitioner=(), config=CONFIG, shapes=None, passes=(), kw=None):
        """``inputs``: one tuple for each run."""
        kwargs = kw or {}
        if not isinstance(model, torch.fx.GraphModule):
            model.eval()
        program = export(model, inputs[0], kwargs, dynamic_shapes=shapes, strict=False)
        edge = lower(program, partitioner=list(partitioner), compile_config=config)
        save(directory, name, edge, [("forward", args, kwargs) for args in inputs], passes)

    rows = ({0: Dim("rows", min=1, max=10)},)
    batches = [(torch.randn(n, 16),) for n in (3, 10, 1, 3)]
    make("dynamic", Dynamic(), *batches, partitioner=delegate, shapes=rows)
    make("dynamic_undelegated", Dynamic(), *batches, shapes=rows)
    make("partly", Partly(), *[(torch.randn(2, 16),) for _ in range(2)], partitioner=delegate)
    steps = [(torch.randn(4),) for _ in range(3)]
    make("mutable", Counter(), *steps, partitioner=delegate)
    make("mutable_initialized", Counter(), *steps, passes=[InitializedMutableBufferPass(["state"])])
    make("scanned", Scanned(), *[(torch.randn(5, 4),) for _ in range(3)])
    make("writer", Writer(), (torch.randn(2, 3), torch.zeros(()), torch.randn(3)))
    x = torch.randn(2, 4)
    branches = [(torch.tensor(way), x) for way in (True, False, True)]
    make("cond", Cond(), *branches, partitioner=delegate)
    make("mapped", Mapped(), *[(torch.randn(3, 4), torch.randn(4)) for _ in range(2)])
    for config, name in ((CONFIG, "nested"), (DIMENSION_ORDER, "nested_dim_order")):
        make(
            name,
            Nested(),
            ({"a": torch.randn(2, 3)}, (torch.randn(2, 3), torch.arange(-2, 4))),
            kw={"mask": torch.tensor([True, False])},
            config=config,
        )
    image = torch.randn(1, 3, 8, 8)
    make("pool", Pool(), (image,), partitioner=delegate)
    last = image.to(memory_format=torch.channels_last)
    convolution = nn.Conv2d(3, 8, 3, padding=1).to(memory_format=torch.channels_last)
    make("channels_last", convolution, (last,), config=DIMENSION_ORDER)

    pooled = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
    make("average_pool", nn.Sequential(nn.Conv2d(3, 4, 1), pooled), (image,), partitioner=delegate)
    make("number", Number(), (torch.tensor(-0.3),), (torch.tensor(2.0),), partitioner=delegate)
    make("numbers", Numbers(), (torch.randn(2, 4), torch.tensor(0.3)), partitioner=delegate)
    dynamic = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = XNNPACKQuantizer().set_global(dynamic)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    prepared = prepare_pt2e(export(convolutions.eval(), (image,)).module(), quantizer)
    prepared(image)
    make("dynamic_convolutions", convert_pt2e(prepared), (image,), partitioner=delegate)

    make("spectrum", Spectrum(), *[(torch.randn(2, 16),) for _ in range(2)])
    make("complex_filter", Filter(), (torch.randn(2, 5, dtype=torch.complex64),))

    two, args = Two().eval(), (torch.randn(3, 8),)
    forward = export(two, args, strict=False)
    Two.forward = Two.encode
    programs = {"forward": forward, "encode": export(two, args, strict=False)}
    edge = lower(
        programs,
        partitioner=delegate,
        constant_methods={"size": 8, "label": "two"},
        compile_config=CONFIG,
    )
    save(directory, "two_methods", edge, [("forward", args, {}), ("encode", args, {})])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))

"""``python -m benchmarks.kernels``: our own kernels beside XNNPACK's, shape by shape.

Each shape is one node, run by both engines by turns on one thread; the best of many runs counts, in
CPU time, so that other work on the machine disturbs little. Writes ``docs/kernels.md``, one section
an instruction set, or ``docs/kernels-avx2.md`` where the processor has no more than AVX2. XNNPACK
has no switch for a lower one, so for the section of AVX2 the features beyond are hidden from its
library: it finds them in a table of the ``cpuinfo`` library.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser_of
from benchmarks.kernel_layers import Layer, layers
from benchmarks.kernel_shapes import SHAPES, DynamicShape, Shape
from penstock.runtime import blocks
from penstock.runtime.engines.native import library as native
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.families import kernel_names
from penstock.runtime.engines.native.isa import VARIABLE, Isa
from penstock.runtime.engines.protocol import Engine, Fixable
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack import library as xnnpack
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine
from penstock.tools.profiling.machine import fp32_peak

#: The instruction sets that get a section, where the machine has them.
SECTIONS = ("avx512vnni", "avx512", "avxvnni", "avx2")
ROUNDS, SECONDS = 15, 0.4
#: What a row of the page is about.
Case = Shape | DynamicShape | Layer
#: Of ``struct cpuinfo_x86_isa``: FMA and AVX2, which must be there, and what lies beyond them.
_FMA3, _AVX2 = 24, 28
_AVXVNNI, _BEYOND = 23, range(29, 55)


def hide_from_xnnpack(isa: Isa) -> None:
    """XNNPACK takes this machine for one without AVX-512, and without AVX-VNNI unless ``isa`` has
    it. Call it before the first engine is made.

    Raises RuntimeError if the library's table is not the one that we know.
    """
    path = xnnpack.find()
    for stem in xnnpack.STEMS[:-1]:
        pool = ctypes.CDLL(str(path.parent / xnnpack.file_name(stem)))
    pool.cpuinfo_initialize()
    table = (ctypes.c_uint8 * 85).in_dll(pool, "cpuinfo_isa")
    if not (table[_FMA3] == table[_AVX2] == 1 and max(table) == 1):
        raise RuntimeError("the table of cpuinfo is not the one of executorch 1.5.1")
    for index in _BEYOND if Isa.AVXVNNI in isa else (_AVXVNNI, *_BEYOND):
        table[index] = 0


def runner(engine: Engine, shape: Case) -> Callable[[], None]:
    """A call that runs ``shape`` once, with as little of Python as there is."""
    graph = shape.graph()
    executable = engine.compile(graph, threads=Threads(1))
    values = {value.id: value for value in graph.values}
    rng = np.random.default_rng(0)
    inputs = []
    for i in graph.inputs:
        dtype, size = values[i].dtype.traits.array, values[i].shape
        assert dtype is not None
        inputs.append(_array(size, dtype))
        if dtype.kind == "f":
            inputs[-1][...] = rng.standard_normal(size)
        else:
            inputs[-1][...] = rng.integers(-128, 128, size)
    outputs = []
    for i, made in zip(graph.outputs, executable.reshape([a.shape for a in inputs]), strict=True):
        dtype = values[i].dtype.traits.array
        assert dtype is not None
        outputs.append(_array(made, dtype))
    executable.run(inputs, outputs)
    fixed = executable.fixed(inputs, outputs) if isinstance(executable, Fixable) else None
    return fixed or (lambda: executable.run(inputs, outputs))


def _array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array that engines take as it is."""
    return blocks.empty(prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def measured(shape: Case, engines: dict[str, Engine]) -> dict[str, float]:
    """Seconds of CPU time, by engine."""
    runs = {name: runner(engine, shape) for name, engine in engines.items()}
    best: dict[str, float] = {}
    repeat = {}
    for name, run in runs.items():
        run()
        start = time.process_time()
        run()
        repeat[name] = max(1, int(SECONDS / ROUNDS / max(time.process_time() - start, 1e-6)))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.process_time()
            for _ in range(repeat[name]):
                run()
            spent = (time.process_time() - start) / repeat[name]
            best[name] = min(best.get(name, spent), spent)
    return best


def _title(shape: Case) -> str:
    return f"{shape.name}, {shape.type}"


def section(isa: str, only: str = "") -> dict[str, Any]:
    """All shapes at the instruction set ``isa``, which ``PENSTOCK_ISA`` names."""
    library = native.shared_library()
    if Isa.AVX512 not in library.isa:
        hide_from_xnnpack(library.isa)
    engines: dict[str, Engine] = {"native": NativeEngine(everything=True)}
    engines["xnnpack"] = XnnpackEngine()
    auto = NativeEngine()
    rows = []
    for shape in (*SHAPES, *layers()):
        if only not in _title(shape):
            continue
        graph = shape.graph()
        if engines["native"].reason_against(graph, graph.nodes[-1]) is not None:
            continue
        taken = auto.reason_against(graph, graph.nodes[-1]) is None
        rows.append(
            {
                "name": shape.name,
                "type": shape.type,
                "operations": shape.operations,
                "taken": taken,
                **measured(shape, engines),
            }
        )
        print(f"{isa}: {shape.name} {rows[-1]}", file=sys.stderr)
    return {
        "isa": isa,
        "machine": machine.describe(),
        "kernels": kernel_names(library),
        "peak": fp32_peak(),
        "vnni": bool(library.isa & (Isa.AVXVNNI | Isa.AVX512VNNI)),
        "rows": rows,
    }


def text_of(found: dict[str, Any]) -> Iterator[str]:
    """A section of the page."""
    names = found["machine"]
    yield f"## {found['isa']}"
    yield ""
    yield (
        f"{names['processor']}, {names['date']}. The peak of one core, measured: "
        f"{found['peak'] / 1e9:.0f} GFLOP/s in fp32. Kernels: "
        + ", ".join(f"`{family}` {kernel}" for family, kernel in found["kernels"].items())
        + "."
    )
    yield ""
    yield "| shape | XNNPACK | ours | share of peak | ours is faster | runs on |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in found["rows"]:
        # A multiply-add of 4 int8 with VNNI, of 2 int16 without, takes the place of one of fp32.
        width = 1 if row["type"] == "fp32" else 4 if found["vnni"] else 2
        ours, theirs = (row["operations"] / row[e] / 1e9 for e in ("native", "xnnpack"))
        share = ours * 1e9 / (found["peak"] * width)
        yield (
            f"| {row['name']}, {row['type']} | {theirs:.0f} | {ours:.0f} | {share:.0%} |"
            f" {row['xnnpack'] / row['native']:.2f} x |"
            f" {'our kernel' if row['taken'] else 'XNNPACK'} |"
        )


def page(sections: list[dict[str, Any]]) -> str:
    """``docs/kernels.md``, or ``docs/kernels-avx2.md``."""
    narrow = [found["isa"] for found in sections] == ["avx2"]
    lines = [
        "# Kernels with AVX2 alone" if narrow else "# Kernels",
        "",
        "Made by `python -m benchmarks.kernels`. Our own kernels beside XNNPACK's on the same"
        " node, or the nodes of a layer, by turns, one thread, batch 1: billions of operations a"
        " second (a multiply-add is two), the best of many runs. The last column says what"
        ' `engine="auto"` gives such a node, alone, to. In the sections without'
        " AVX-512, XNNPACK does not see it either. A"
        " share of more than 100 % is work that was saved: padding left out, Winograd's"
        " products. An addition counts one. int8's peak is four times that of fp32 with VNNI,"
        " else twice. Of a norm, six operations an element are counted.",
        "",
    ]
    for found in sections:
        lines += [*text_of(found), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure each section in a process of its own, and write the page."""
    parser = parser_of(__doc__)
    parser.add_argument("only", nargs="?", default="", help="shapes with this; writes no page")
    parser.add_argument("--section", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        print(json.dumps(section(os.environ[VARIABLE], options.only)))
        return
    if not any(options.only in _title(shape) for shape in (*SHAPES, *layers())):
        parser.exit(2, f"error: no shape has {options.only!r} in its name; see docs/kernels.md\n")
    detected = native.shared_library().detected.names
    sections = []
    for isa in (name for name in SECTIONS if name in detected):
        if isa == "avx512" and "avx512vnni" in detected:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.kernels", "--section", options.only],
            stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, VARIABLE: isa},
        )  # fmt: skip
        sections.append(json.loads(done.stdout))
    text = page(sections)
    print(text)
    if not options.only:
        machine.page_for("kernels", machine.describe()).write_text(text)


if __name__ == "__main__":
    main()

"""The figures of ``benchmarks.run`` as ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.machine import only_avx2
from penstock.tools.bench.contest import LAUNCHES

#: How many times as fast as stock a model should be at least: fp32, q8.
TARGETS = {
    "mv2": (1.0, 1.0), "mv3": (1.0, 1.0), "resnet18": (1.0, 1.0), "resnet50": (1.0, 1.0),
    "efficientnet_b0": (1.0, 1.0), "ic3": (4.0, 8.0), "dl3": (1.15, 1.15), "vit": (1.4, 2.0),
    "convnext_tiny": (1.6, 1.6), "swin_t": (1.25, 1.2), "minilm": (1.5, 2.2),
}  # fmt: skip
#: ... on processors with AVX2 alone, where XNNPACK is slow at convolutions and has no VNNI in int8;
#: minilm's in q8 is of stock's fp32 file, which stands in.
TARGETS_AVX2 = {
    "mv2": (1.08, 1.5), "mv3": (1.0, 1.0), "resnet18": (2.5, 2.0), "resnet50": (1.9, 1.8),
    "efficientnet_b0": (1.08, 1.5), "ic3": (3.9, 5.5), "dl3": (2.8, 2.15), "vit": (1.3, 1.92),
    "convnext_tiny": (1.83, 2.74), "swin_t": (1.14, 1.6), "minilm": (1.51, 2.43),
}  # fmt: skip
#: The first words of the page, and where the other machines' figures are.
TITLE = "# Benchmarks"
TITLE_AVX2 = "# Benchmarks with AVX2 alone"
OTHERS = (
    "The tables of a processor with AVX2 and no more are in "
    "[benchmarks-avx2.md](benchmarks-avx2.md); those of an EPYC of the generation before, with "
    "vector units half as wide, in [benchmarks-zen4.md](benchmarks-zen4.md); those of a machine "
    "like this one before there were kernels of our own in "
    "[benchmarks-earlier.md](benchmarks-earlier.md). "
    "[kernels.md](kernels.md) has each kernel by shape, [kernels-avx2.md](kernels-avx2.md) those "
    "of a processor with AVX2 and no more."
)
OTHERS_AVX2 = (
    "Most desktops and many servers are such machines: no AVX-512, no VNNI. The tables of one that "
    "has both are in [benchmarks.md](benchmarks.md). [kernels-avx2.md](kernels-avx2.md) has each "
    "kernel by shape. What is wanted of ic3, dl3 and the transformers is in multiples of what "
    "XNNPACK alone took of our file, here as multiples of stock."
)
#: The heading of what is measured beside the models.
STARTS = "Start and overhead"
LABELS = {
    "ours": "Penstock", "stock": "ExecuTorch", "ported": "our file on ExecuTorch",
    "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO",
}  # fmt: skip


def page(results: dict[str, Any]) -> str:
    models, narrow = results["models"], only_avx2(results["machine"])
    parts = [
        TITLE_AVX2 if narrow else TITLE,
        "",
        "Made by `make bench`. Penstock beside the stock flow and runtime of the `executorch` "
        "package (both with the same XNNPACK library, weights, inputs and calibration data), ONNX "
        "Runtime and OpenVINO. Batch 1. All runtimes of a row were measured by turns, each in a "
        f"process of its own that is kept alive, started {LAUNCHES} times where nothing else is "
        "said. Times are the best run's, in milliseconds; a ratio is ExecuTorch's "
        "time over the other, so above 1 is faster than stock; in brackets are the quartiles of "
        "the ratio from turn to turn, which other work on "
        "the machine widens. **Bold** is the fastest of a row. Beside each q8 time stands the "
        "signal to noise of that runtime's answers against eager fp32 PyTorch's: of the worst of "
        "four samples, the same for all.",
        "",
        "q8 is static per-channel for the convolutional networks, dynamic per-channel for vit, "
        "convnext_tiny, swin_t and minilm; ONNX Runtime's own tools quantize the ONNX files, which "
        "OpenVINO reads too. Where the stock flow fails to quantize, its fp32 file stands in (†). "
        "minilm has its real weights and 128 tokens, the others have seeded random ones.",
        "",
        *(f"- {key}: {value}" for key, value in results["machine"].items()),
        *_other_days(models, results["machine"]["date"]),
        *_other_launches(models),
        "",
        OTHERS_AVX2 if narrow else OTHERS,
    ]
    for threads in (1, 2):
        parts += [
            "",
            f"## Latency, {threads} thread{'s' if threads > 1 else ''}",
            "",
            *_table(
                ("model", "", *LABELS.values(), "ratio, ours", "ratio, our file there", "wanted"),
                [_latency(key, row, threads, narrow) for key, row in models.items()],
            ),
        ]
    parts += [
        "",
        "## Compiling",
        "",
        "CPU seconds of one process with one thread, imports and the making of the model apart; "
        "growth of its peak memory meanwhile, in multiples of the weights' size. Wanted: 4 times "
        "as fast on vit, swin_t and ic3, and 3 times the weights for vit.",
        "",
        *_table(
            ("model", "", "pieces, nodes outside", "stock's", "ours, s", "stock, s", "ratio",
             "memory / weights", "stock's", "file, MB", "stock's"),
            [_compiling(key, row, models) for key, row in models.items()],
        ),
        "",
        "## Memory of a run",
        "",
        "What loading and one run on one thread add to the process's peak, in MB; of ours and the "
        "stock runtime also the whole process (that of the stock runtime's Python package brings "
        "torch with it).",
        "",
        *_table(
            ("model", "", *LABELS.values(), "whole process, ours", "stock's"),
            [_memory(key, row) for key, row in models.items()],
        ),
    ]  # fmt: skip
    if "starts" in results:
        starts, overhead = results["starts"], results["overhead"]
        parts += [
            "",
            f"## {STARTS}",
            "",
            f"- From the start of `xnn_executor_runner` to MobileNetV2's answer: "
            f"{starts['ours']['best']:.2f} s at best, {starts['ours']['cpu']:.2f} s of CPU; the "
            f"same with the stock runtime from Python: {starts['stock']['best']:.2f} s and "
            f"{starts['stock']['cpu']:.2f} s.",
            f"- One whole call of a program that adds two numbers, the overhead and little else: "
            f"{overhead['ours']:.1f} µs; with the stock runtime {overhead['stock']:.1f} µs.",
        ]
    if "self-tests" in results:
        tests = results["self-tests"]
        parts += [
            f"- Of that start the self-tests of XNNPACK's library and of our kernels take "
            f"{tests['xnnpack']:.1f} and {tests['native']:.1f} ms of CPU.",
        ]
    return "\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _latency(key: str, row: dict[str, Any], threads: int, narrow: bool) -> list[str]:
    name, precision = key.split()
    found = row.get(f"threads {threads}", {})
    times = {label: found[label]["best"] for label in LABELS if "best" in found.get(label, {})}
    fastest = min(times.values(), default=0.0)
    cells = [name, precision]
    for label in LABELS:
        if label not in times:
            cells.append("fails" if "error" in found.get(label, {}) else "")
            continue
        text = f"{times[label]:.2f}"
        cells.append(f"**{text}**" if times[label] == fastest else text)
        if label == "stock" and found["stock stands in"]:
            cells[-1] += " †"
        accuracy = found[label].get("sqnr")
        if precision == "q8" and accuracy is not None:
            cells[-1] += f" ({accuracy:.1f} dB)"
    for label in ("ours", "ported"):
        if label in times and "stock" in times:
            _, low, high = found[label]["spread"]
            cells.append(f"{times['stock'] / times[label]:.2f} ({low:.2f} to {high:.2f})")
        else:
            cells.append("")
    targets = (TARGETS_AVX2 if narrow else TARGETS).get(name)
    cells.append("" if targets is None else f"{targets[precision == 'q8']:.2f}")
    return cells


def _other_days(models: dict[str, Any], today: str) -> list[str]:
    """A line for each other day with the rows that were measured then."""
    days: dict[str, list[str]] = {}
    for key, row in models.items():
        if row.get("date", today) != today:
            days.setdefault(row["date"], []).append(key)
    return [f"- of {day}: {', '.join(keys)}" for day, keys in sorted(days.items())]


def _other_launches(models: dict[str, Any]) -> list[str]:
    """A line for each other number of launches with the rows that were measured so."""
    numbers: dict[int, list[str]] = {}
    for key, row in models.items():
        numbers.setdefault(row.get("launches", LAUNCHES), []).append(key)
    return [
        f"- launched {number} time{'s' if number > 1 else ''}: {', '.join(keys)}"
        for number, keys in sorted(numbers.items())
        if number != LAUNCHES
    ]


def _compiling(key: str, row: dict[str, Any], models: dict[str, Any]) -> list[str]:
    name, precision = key.split()
    flows = row["files"]
    weights = models.get(f"{name} fp32", row)["files"]["ours"].get("bytes")
    pieces: list[str] = []
    seconds: list[float | None] = []
    memory: list[str] = []
    sizes: list[str] = []
    for kind in ("ours", "stock"):
        flow = flows[kind]
        if "error" in flow:
            pieces, seconds = [*pieces, "fails"], [*seconds, None]
            memory, sizes = [*memory, "fails"], [*sizes, "fails"]
            continue
        pieces.append(f"{flow['pieces']}, {flow['outside']}")
        seconds.append(flow.get("cpu_seconds"))
        memory.append(f"{1024 * flow['growth_kib'] / weights:.1f}" if weights else "")
        sizes.append(f"{flow['bytes'] / 1e6:.2f}")
    ours, stock = seconds
    return [
        name, precision, *pieces,
        *("fails" if value is None else f"{value:.1f}" for value in seconds),
        f"{stock / ours:.1f}" if ours and stock else "",
        *memory, *sizes,
    ]  # fmt: skip


def _memory(key: str, row: dict[str, Any]) -> list[str]:
    found = row.get("threads 1", {})
    growth = [found.get(label, {}).get("growth_kib") for label in LABELS]
    peak = [found.get(label, {}).get("peak_kib") for label in ("ours", "stock")]
    return [
        *key.split(),
        *("" if kib is None else f"{kib * 1024 / 1e6:.0f}" for kib in (*growth, *peak)),
    ]

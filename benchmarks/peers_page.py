"""The figures of ``benchmarks.peers`` as ``docs/benchmarks-models.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

#: How many times as fast as stock a model should be at least: fp32, q8.
TARGETS = {
    "mv2": (1.0, 1.0), "mv3": (1.0, 1.0), "resnet18": (1.0, 1.0), "resnet50": (1.0, 1.0),
    "efficientnet_b0": (1.0, 1.0), "ic3": (4.0, 8.0), "dl3": (1.15, 1.15), "vit": (1.4, 2.0),
    "convnext_tiny": (1.6, 1.6), "swin_t": (1.25, 1.2), "minilm": (1.5, 2.2),
}  # fmt: skip
LABELS = {
    "ours": "Penstock", "stock": "ExecuTorch", "ported": "our file on ExecuTorch",
    "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO",
}  # fmt: skip


def page(results: dict[str, Any]) -> str:
    models = results["models"]
    parts = [
        "# Models, beside every peer",
        "",
        "Made by `python -m benchmarks.peers`. Batch 1, seeded random weights, the same for all. "
        "All runtimes of a row were measured by turns in one run, each in a process of its own "
        "that was kept alive. Times are the best run's, in milliseconds; a ratio is ExecuTorch's "
        "time over ours, of the best runs, with the quartiles of the ratio from turn to turn in "
        "brackets (other work on the machine widens them). **Bold** is the fastest of a row. "
        "q8 is static per-channel for the convolutional networks, dynamic per-channel for vit, "
        "convnext_tiny, swin_t and minilm; ONNX Runtime's own tools quantize the ONNX files, which "
        "OpenVINO reads too. Where the stock flow fails to quantize, its fp32 file stands in (†).",
        "",
        *(f"- {key}: {value}" for key, value in results["machine"].items()),
    ]
    for threads in (1, 2):
        parts += [
            "",
            f"## Latency, {threads} thread{'s' if threads > 1 else ''}",
            "",
            *_table(
                ("model", "", *LABELS.values(), "ratio, ours", "ratio, our file there", "wanted"),
                [_latency(key, row, threads) for key, row in models.items()],
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
             "memory / weights", "stock's"),
            [_compiling(key, row, models) for key, row in models.items()],
        ),
        "",
        "## Memory of a run",
        "",
        "What loading and one run on one thread add to the process's peak, in MB.",
        "",
        *_table(
            ("model", "", *LABELS.values()),
            [_memory(key, row) for key, row in models.items()],
        ),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _latency(key: str, row: dict[str, Any], threads: int) -> list[str]:
    name, precision = key.split()
    found = row[f"threads {threads}"]
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
    for label in ("ours", "ported"):
        if label in times and "stock" in times:
            _, low, high = found[label]["spread"]
            cells.append(f"{times['stock'] / times[label]:.2f} ({low:.2f} to {high:.2f})")
        else:
            cells.append("")
    targets = TARGETS.get(name)
    cells.append("" if targets is None else f"{targets[precision == 'q8']:.2f}")
    return cells


def _compiling(key: str, row: dict[str, Any], models: dict[str, Any]) -> list[str]:
    name, precision = key.split()
    flows = row["files"]
    weights = models.get(f"{name} fp32", row)["files"]["ours"].get("bytes")
    pieces, seconds, memory = [], [], []
    for kind in ("ours", "stock"):
        flow = flows[kind]
        if "error" in flow:
            pieces, seconds, memory = [*pieces, "fails"], [*seconds, None], [*memory, ""]
            continue
        pieces.append(f"{flow['pieces']}, {flow['outside']}")
        seconds.append(flow.get("cpu_seconds"))
        memory.append(f"{1024 * flow['growth_kib'] / weights:.1f}" if weights else "")
    ours, stock = seconds
    return [
        name, precision, *pieces,
        *(f"{value:.1f}" if value is not None else "" for value in seconds),
        f"{stock / ours:.1f}" if ours and stock else "",
        *memory,
    ]  # fmt: skip


def _memory(key: str, row: dict[str, Any]) -> list[str]:
    found = row["threads 1"]
    growth = (found.get(label, {}).get("growth_kib") for label in LABELS)
    return [*key.split(), *("" if g is None else f"{g / 1024:.0f}" for g in growth)]

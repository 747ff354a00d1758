"""Models outside the zoo -> docs/unseen-models.md.

    python -m benchmarks.unseen [PART OF A NAME ...]

Each is compiled in fp32 and in int8, run here and on the stock runtime. Results are kept in
``build/measured/unseen.json``; with names given only these are made again, and the page is written
where the others are there.
"""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import penstock
from benchmarks import ROOT
from benchmarks.arguments import names_given
from benchmarks.flows import relative_error, same_bits, sqnr
from benchmarks.machine import describe
from benchmarks.unseen_models import MODELS, Unseen
from benchmarks.whole_pages import write_page
from penstock.compiler.quantize import Quantization
from penstock.tools.bench.child import WorkerError
from penstock.tools.bench.machine import busy
from penstock.tools.bench.workers import Worker

FOLDER = ROOT / "build" / "measured"
PAGE = ROOT / "docs" / "unseen-models.md"
#: The first batches settle the batch norms of a model; it is calibrated on the next ones.
SETTLING = 8
CALIBRATION = 8
SAMPLES = 4


def measure(model: Unseen, precision: str, path: Path) -> dict[str, Any]:
    """One model in one precision: pieces, errors, seconds."""
    count = SETTLING + CALIBRATION + SAMPLES
    batches = list(islice(model.batches(count), count))[SETTLING:]
    samples = batches[CALIBRATION:]
    start = time.process_time()
    lowered = penstock.lower(
        model.module,
        batches[0],
        quantize=None if precision == "fp32" else Quantization(scheme=model.scheme),
        calibration=None if precision == "fp32" else batches[:CALIBRATION],
    )
    lowered.save(path)
    seconds = time.process_time() - start
    row: dict[str, Any] = {
        "seconds": seconds,
        "export": seconds * lowered.timings["capture"] / sum(lowered.timings.values()),
        "bytes": path.stat().st_size,
        "pieces": len(lowered.delegation.subgraphs),
        "delegated": len(lowered.delegation.delegated),
        "outside": [(node.target, str(why)) for node, why in lowered.delegation.undelegated],
    }
    method = penstock.load(path, threads=1).method("forward")
    arrays = [[tensor.numpy() for tensor in sample] for sample in samples]
    got = [[np.array(a) for a in method.run(inputs)] for inputs in arrays]
    with torch.no_grad():
        eager = [[t.numpy() for t in model.module(*sample)] for sample in samples]
    row["error"], row["sqnr"] = relative_error(eager, got), sqnr(eager, got)
    row["stock"] = _on_stock(path, arrays[0], got[0])
    return row


def _on_stock(path: Path, inputs: list[np.ndarray], ours: list[np.ndarray]) -> str:
    """What the stock runtime makes of the file."""
    given = path.with_suffix(".npz")
    np.savez(given, *inputs)
    with Worker("executorch", 1) as stock:
        try:
            stock.load("ours", path, given)
            answer = stock.outputs("ours")
        except WorkerError as error:
            return f"fails: {error}"
    if same_bits([answer], [ours]):
        return "same bits"
    return f"differs by {relative_error([answer], [ours]):.0e}"


def main(parts: list[str]) -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    store = FOLDER / "unseen.json"
    kept = json.loads(store.read_text()) if store.exists() else {}
    results = kept.setdefault("models", {})
    kept["machine"] = describe()
    if busy():
        kept["machine"]["note"] = "other work ran, so that compiling took longer than it does alone"
    for name, make in MODELS.items():
        if parts and not any(part in name for part in parts):
            continue
        torch.manual_seed(0)
        model = make()
        for precision in ("fp32", "q8"):
            try:
                row = measure(model, precision, FOLDER / "unseen.pte")
            except penstock.PenstockError as error:
                row = {"fails": str(error)}
            results.setdefault(name, {})[precision] = row
            store.write_text(json.dumps(kept, indent=1))
            print(name, precision, {k: v for k, v in row.items() if k != "outside"}, flush=True)
        del model
        gc.collect()
    write_page(PAGE, page(results, kept["machine"]), MODELS)


HEADER = (
    "model", "pieces fp32, q8", "in XNNPACK", "outside", "error fp32", "SQNR q8, dB",
    "compile, s (of it torch.export)", "on the stock runtime",
)  # fmt: skip


def line(name: str, row: dict[str, Any]) -> str:
    full, small = row["fp32"], row["q8"]
    failed = [f"{kind} **fails**: {r['fails']}" for kind, r in row.items() if "fails" in r]
    if failed:
        return f"| {name} | {'; '.join(failed)} |" + " |" * (len(HEADER) - 2)
    stock = dict.fromkeys([full["stock"], small["stock"]])
    cells = [
        name,
        f"{full['pieces']}, {small['pieces']}",
        f"{full['delegated']} of {full['delegated'] + len(full['outside'])}",
        outside(full["outside"]),
        f"{full['error']:.1e}",
        f"{small['sqnr']:.1f}",
        f"{full['seconds']:.1f} ({full['export']:.1f}), {small['seconds']:.1f} "
        f"({small['export']:.1f})",
        ", ".join(stock),
    ]
    return "| " + " | ".join(cells) + " |"


def outside(nodes: list[tuple[str, str]]) -> str:
    """``2 embedding, 1 where``."""
    counts = Counter(target.split(".")[1] if "." in target else target for target, _ in nodes)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


NOTES = [
    "The random convmixer is chaotic: on these samples eager float32 itself is 1e-3 of the range "
    "and more away from eager float64, so its errors here say nothing about the compiler.",
]


def page(results: dict[str, Any], machine: dict[str, str]) -> str:
    rows = [line(name, results[name]) for name in MODELS if name in results]
    missing = [name for name in MODELS if name not in results]
    reasons: dict[str, set[str]] = {}
    for row in results.values():
        for target, why in row["fp32"].get("outside", ()):
            reasons.setdefault(target, set()).add(why)
    listed = [f"- `{target}`: {'; '.join(sorted(why))}" for target, why in sorted(reasons.items())]
    return "\n".join(
        [
            "# Models outside the zoo",
            "",
            "Made by `python -m benchmarks.unseen`. Models of torchvision, timm and transformers "
            "that nothing in Penstock was made for, with random weights.",
            "",
            *(f"- {key}: {value}" for key, value in machine.items()),
            "",
            "The columns:",
            "",
            "- *pieces*: calls of XNNPACK in the compiled program; *in XNNPACK*: operators, fp32",
            "- *error*: largest difference from eager PyTorch, in parts of the output's range",
            "- *SQNR*: of int8 against eager PyTorch, of the worst output; static quantization "
            f"(calibrated on {CALIBRATION} batches) for torchvision and timm, dynamic for "
            "transformers",
            "- *compile*: seconds of CPU time on one thread",
            "- *on the stock runtime*: the same file there, against the answers here",
            "",
            "| " + " | ".join(HEADER) + " |",
            "|" + " --- |" * len(HEADER),
            *rows,
            "",
            *NOTES,
            "",
            *([f"Listed but not measured yet: {', '.join(missing)}.", ""] if missing else []),
            *(["Why operators are outside:", "", *listed, ""] if listed else []),
        ]
    )


if __name__ == "__main__":
    main(names_given(__doc__, "MODEL", MODELS, parts=True))

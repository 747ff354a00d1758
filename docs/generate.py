"""``make docs``: writes ``docs/operators.md`` from the operator table and the kernel registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "operators.md"


def page() -> str:
    from penstock.compiler.operators import registry as operators
    from penstock.formats.kernel_names import stock_kernels
    from penstock.runtime.instructions import CORE_OPERATORS
    from penstock.runtime.kernels import registry as kernels

    entries = sorted(operators.entries(), key=lambda entry: entry.name)
    stock = stock_kernels()
    own = set(kernels.names()) | set(CORE_OPERATORS)
    return "\n".join(
        [
            "# Operators",
            "",
            "Made by `make docs` from the code; a test keeps it up to date.",
            "",
            "## To XNNPACK",
            "",
            f"{len(entries)} entries answer to {sum(len(e.targets) for e in entries)} ATen "
            "overloads. *Quantized* says how an entry takes part in int8: *weights* (int8 "
            "activations and weights, int32 bias; *dynamic*: also with activations that are "
            "quantized at run time), *own range* (inputs and output each with parameters of their "
            "own), *shared range* (the output has its input's parameters), *fixed range* (known "
            "beforehand), or not at all (float).",
            "",
            "| entry | ATen overloads | quantized | remarks |",
            "| --- | --- | --- | --- |",
            *(
                f"| {e.name} | {_overloads(e.targets)} | {_quantized(e.quantization)} "
                f"| {_cell(e.notes)} |"
                for e in entries
            ),
            "",
            "## Kernels",
            "",
            f"What runs outside a delegate: {len(own)} operators. The stock runtime has "
            f"{len(stock)} in its portable, optimized and quantized libraries; "
            f"{len(stock & own)} of them are here.",
            "",
            "| operator | overloads | in the stock runtime |",
            "| --- | --- | --- |",
            *_kernel_rows(own, stock),
            "",
        ]
    )


def _overloads(targets: tuple[Any, ...]) -> str:
    return ", ".join(f"`{str(target).removeprefix('aten.')}`" for target in targets)


def _quantized(rule: Any) -> str:
    if rule is None:
        return "float"
    kind = type(rule).__name__
    if kind == "Weighted":
        if callable(rule.dynamic):
            return "weights, some dynamic"
        return "weights, dynamic" if rule.dynamic else "weights"
    return {"Independent": "own range", "Shared": "shared range", "FixedOutput": "fixed range"}[
        kind
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _kernel_rows(own: set[str], stock: frozenset[str]) -> list[str]:
    families: dict[str, list[str]] = {}
    for name in sorted(own | stock):
        families.setdefault(name.partition(".")[0], []).append(name)
    rows = []
    for family, names in families.items():
        overloads = ", ".join(f"`{name.partition('.')[2] or '-'}`" for name in names)
        present = sum(name in stock for name in names)
        there = "all" if present == len(names) else f"{present} of {len(names)}" if present else ""
        missing = [name for name in names if name not in own]
        rows.append(f"| `{family}` | {overloads} | {there}{' (missing here)' if missing else ''} |")
    return rows


def main() -> None:
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.exists() and PAGE.read_text() == text else 1)
    PAGE.write_text(text)
    print(f"written: docs/{PAGE.name}")


if __name__ == "__main__":
    main()

"""How far two machines' answers to one program are apart, as a whole and node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: What is promised, in decibels: fp32 differs in rounding alone. Of rows quantized at run time, and
#: of static int8's products (MULTIPLY), a value may fall on the other side of a half, one step; the
#: rest of the model amplifies that, to less than the error of int8 itself.
PROMISE = {"static": np.inf, "static, MULTIPLY": 30.0, "fp32": 90.0, "dynamic": 35.0}


@dataclass(frozen=True)
class Agreement:
    """Of one program: what decides over its bits, the outputs' agreement in decibels (infinite
    where the bits are the same) on XNNPACK and with our own kernels, and the first nodes that
    differ, as their kinds."""

    name: str
    kind: str
    xnnpack: float
    auto: float
    same_nodes: int
    nodes: int
    first: str

    @property
    def kept(self) -> bool:
        """Whether the promise for its kind is."""
        return min(self.xnnpack, self.auto) >= PROMISE[self.kind]


def agreement(name: str, here: Path, there: Path) -> Agreement:
    """That of the files that ``answers.py`` wrote on both machines."""
    with np.load(here) as a, np.load(there) as b:
        taps = [key for key in a.files if key.startswith("tap|")]
        same = [np.array_equal(a[key], b[key], equal_nan=True) for key in taps]
        first = next((key for key, equal in zip(taps, same, strict=True) if not equal), "")
        made = {tuple(key.split("|")[2:4]) for key in taps}
        outputs = {e: _decibels_of(a, b, f"{e}|out|") for e in ("xnnpack", "auto")}
        quantized = bool(a["quantized"])
    kind = "dynamic" if quantized else "fp32"
    if any(dtype == "qint8" for _, dtype in made):
        kind = "static, MULTIPLY" if ("multiply", "qint8") in made else "static"
    words = " ".join(first.split("|")[2:4])
    return Agreement(name, kind, outputs["xnnpack"], outputs["auto"], sum(same), len(same), words)


def _decibels_of(a: np.lib.npyio.NpzFile, b: np.lib.npyio.NpzFile, prefix: str) -> float:
    return min(decibels(a[key], b[key]) for key in a.files if key.startswith(prefix))


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    """Signal to noise of ``b`` beside ``a``; infinite for the same bits."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return -np.inf
    if np.array_equal(a, b, equal_nan=True):
        return np.inf
    exact = a.astype(np.float64)
    noise = float(np.square(b.astype(np.float64) - exact).sum())
    return 10 * float(np.log10(np.square(exact).sum() / noise))


def node_table(here: Path, there: Path) -> str:
    """Each intermediate value: how far apart it is, in the order of the program."""
    lines = []
    with np.load(here) as a, np.load(there) as b:
        for key in (key for key in a.files if key.startswith("tap|")):
            _, number, kind, dtype, module = key.split("|")
            x, y = a[key], b[key]
            differ = np.count_nonzero(x != y)
            lines.append(
                f"{number:>4} {kind:28} {dtype:8} {decibels(x, y):7.1f} dB"
                f" {differ:8} of {x.size:8} {module}"
            )
    return "\n".join(lines) + "\n"


def single_nodes(here: Path, there: Path) -> str:
    """The nodes of ``nodes.py`` that differ, as a table; those that do not, by name below it."""
    lines = ["| node | values that differ | largest difference |", "| --- | --- | --- |"]
    same = []
    with np.load(here) as a, np.load(there) as b:
        for name in a.files:
            x, y = a[name], b[name]
            count = np.count_nonzero(x != y)
            if not count:
                same.append(name)
                continue
            if x.dtype == np.int8:
                off = f"{np.abs(x.astype(int) - y).max()} step of int8"
            else:
                off = f"{np.abs(x.view(np.int32).astype(np.int64) - y.view(np.int32)).max()} ulp"
            lines.append(f"| {name} | {count} of {x.size} | {off} |")
    return "\n".join([*lines, "", f"The same bits: {'; '.join(same)}."])


def table(rows: Sequence[Agreement]) -> str:
    """The rows as a table of Markdown."""
    lines = [
        "| model | on XNNPACK | with our own kernels | values on the way with the same bits |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {_words(row.xnnpack)} | {_words(row.auto)}"
            f" | {row.same_nodes} of {row.nodes} |"
        )
    return "\n".join(lines)


def _words(value: float) -> str:
    return "the same bits" if value == np.inf else f"{value:.1f} dB"

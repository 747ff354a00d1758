"""What the figures were measured on."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ROOT
from penstock.tools.bench import machine


def describe() -> dict[str, str]:
    return machine.describe(("executorch", "torch"))


def only_avx2(found: dict[str, str]) -> bool:
    """Whether the processor that :func:`describe` found has AVX2, and neither AVX-512 nor VNNI."""
    features = found["features"].split(", ")
    return "avx2" in features and not any("avx512" in f or "vnni" in f for f in features)


def page_for(name: str, found: dict[str, str]) -> Path:
    """``docs/NAME.md``, or ``docs/NAME-avx2.md``: figures of the two kinds of processor are not
    mixed."""
    return ROOT / "docs" / f"{name}{'-avx2' if only_avx2(found) else ''}.md"

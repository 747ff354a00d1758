"""What the figures were measured on."""

from __future__ import annotations

from penstock.tools.bench import machine


def describe() -> dict[str, str]:
    return machine.describe(("executorch", "torch"))

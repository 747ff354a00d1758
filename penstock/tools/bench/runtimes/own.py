"""Penstock, with the engines that are fastest here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.runtime import load
from penstock.runtime.engines.named import engines_named
from penstock.tools.bench.worker import Run


class Penstock:
    engine = "auto"

    def __init__(self, threads: int) -> None:
        engines_named(self.engine)  # the other runtimes come with their libraries at import
        self._threads = threads

    def load(self, path: str, data: Sequence[str]) -> Run:
        program = load(path, data=data, threads=self._threads, engine=self.engine)
        return program.method().run

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        return list(inputs)


class PenstockXnnpack(Penstock):
    """With XNNPACK alone."""

    engine = "xnnpack"


class PenstockNative(Penstock):
    """With our own kernels for whatever they can run."""

    engine = "native"

"""What kernels there are: the rows of the operator table in the documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.runtime.kernels import registry


@dataclass(frozen=True)
class Row:
    """One kernel: ``aten::add`` with overload ``out``, the module it is in, and what it does."""

    name: str
    overload: str
    family: str
    doc: str


def rows() -> Iterator[Row]:
    """All kernels of Penstock itself, in the order of their names."""
    for full_name in registry.names():
        found = registry.find(full_name)
        if found is None or not found.function.__module__.startswith("penstock."):
            continue
        name, _, overload = full_name.partition(".")
        family = found.function.__module__.rpartition(".")[2]
        text = inspect.getdoc(found.function) or ""
        yield Row(name, overload, family, " ".join(text.split("\n\n")[0].split()))

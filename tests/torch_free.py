"""Which test files need neither torch nor what imports it: those that run on every Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from import_graph import ROOT, imports_of

#: Where the runtime's tests are.
ROOMS = ("formats", "graph", "runtime", "kernels", "tools")
#: Packages that a machine which only runs programs lacks, and rooms of ours that import them.
HEAVY = {"torch", "torchao", "torchvision", "torchaudio", "timm", "transformers", "executorch"}
COMPILING = ("penstock.lower", "penstock.compiler", "penstock.zoo", "penstock.llm.export")


#: What a file has whose subprocess runs a stock runtime, or torch.
MARKS = ("import torch", "executorch", "on_stock", "torch.no_grad")


def torch_free_tests(rooms: Sequence[str] = ROOMS) -> list[Path]:
    """The test files whose imports, their helpers' and their ``conftest.py``'s too, do without."""
    helpers = {path.stem: path for path in (ROOT / "tests").rglob("*.py")}
    files = [path for room in rooms for path in (ROOT / "tests" / room).rglob("test_*.py")]
    return sorted(
        path
        for path in files
        if not any(mark in path.read_text() for mark in MARKS)
        and not _needs_torch(path, helpers, set())
    )


def _needs_torch(path: Path, helpers: dict[str, Path], seen: set[Path]) -> bool:
    if path in seen:
        return False
    seen.add(path)
    names = imports_of(path)
    heads = {name.partition(".")[0] for name in names}
    if heads & HEAVY or any(f"{n}.".startswith(f"{r}.") for n in names for r in COMPILING):
        return True
    others = [helpers[head] for head in heads & helpers.keys()]
    beside = path.parent / "conftest.py"
    if beside.exists():
        others.append(beside)
    return any(_needs_torch(one, helpers, seen) for one in others)

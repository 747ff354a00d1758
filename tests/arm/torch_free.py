"""Prints the test files that import neither torch nor a package that does, directly or by way of
the helpers beside them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
#: Packages that a machine which only runs programs does not have, and their users in the package.
HEAVY = ("torch", "torchao", "torchvision", "timm", "transformers", "executorch", "IPython", "docs")
COMPILER = ("penstock.compiler", "penstock.zoo", "penstock.lower", "benchmarks", "examples", "fuzz")
#: Folders whose tests are about programs, payloads and what runs them.
FOLDERS = ("formats", "graph", "kernels", "llm", "runtime")


@cache
def needs_torch(path: Path) -> bool:
    """Whether a file's import statements, also inside functions, lead to torch."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    if any(_within(name, one) for name in names for one in HEAVY + COMPILER):
        return True
    helpers = [helper for name in names for helper in TESTS.rglob(f"{name.split('.')[0]}.py")]
    return any(needs_torch(helper) for helper in helpers if helper != path)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def files() -> list[Path]:
    """The test files, relative to the folder above ``tests``."""
    found = [path for folder in FOLDERS for path in sorted((TESTS / folder).rglob("test_*.py"))]
    return [path.relative_to(TESTS.parent) for path in found if not _with_conftest(path)]


def _with_conftest(path: Path) -> bool:
    """Whether a test, or what pytest loads before it, needs torch."""
    before = [
        folder / "conftest.py" for folder in path.parents if TESTS in (folder, *folder.parents)
    ]
    return any(needs_torch(one) for one in (path, *before) if one.is_file())


if __name__ == "__main__":
    print(*files(), sep="\n")

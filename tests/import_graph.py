"""Who imports whom in the package, read off the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "penstock"


def modules() -> dict[str, Path]:
    """The files of the package by dotted name, but for those that flatc generates."""
    files = [p for p in sorted(PACKAGE.rglob("*.py")) if "generated" not in p.parts]
    return {module_name(path): path for path in files}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """All names that a file imports, also inside functions; type-checking imports left out. A name
    ``from a import b`` is ``a.b``."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join((*base, *([node.module] if node.module else [])))
            found.update(f"{whole}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def import_graph() -> dict[str, set[str]]:
    """The modules of the package that each module of it imports."""
    known = modules()
    return {
        name: {m for one in imports_of(path) if (m := _module(one, known))} - {name}
        for name, path in known.items()
    }


def _module(name: str, known: Mapping[str, Path]) -> str | None:
    """The module that an imported name is, or is in."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in known), None)


def cycles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Modules that import each other, directly or by way of others."""
    reached = {name: _reached(name, graph) for name in graph}
    seen: set[str] = set()
    for name in sorted(graph):
        circle = {name, *(other for other in reached[name] if name in reached[other])}
        if name in reached[name] and not circle & seen:
            seen |= circle
            yield sorted(circle)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += graph[name]
    return found

"""Who may import whom (design, section 2), and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "penstock"

#: room -> the rooms that it may import; penstock.errors is open to all.
ALLOWED = {
    "graph": {"graph"},
    "formats": {"formats", "graph"},
    "runtime": {"runtime", "formats", "graph"},
    "compiler": {"compiler", "formats", "graph"},
    "zoo": {"zoo", "compiler", "formats", "graph"},
    "cli": {"cli", "compiler", "runtime", "formats", "graph", "zoo"},
}
#: libraries that only some rooms may import
TORCH = {"torch", "torchao", "torchvision", "torchaudio", "timm", "transformers"}
TORCH_ROOMS = {"compiler", "zoo", "cli"}


def imports_of(path: Path) -> set[str]:
    """All modules that a file imports, also inside functions; type-checking imports left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parent.parts
                parts = package[: len(package) - node.level + 1]
                base = ".".join((*parts, *([base] if base else [])))
            found.update(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def files(room: str) -> list[Path]:
    return [p for p in sorted((PACKAGE / room).rglob("*.py")) if "generated" not in p.parts]


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_they_may(room: str) -> None:
    assert files(room)
    wrong = []
    for path in files(room):
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "executorch":
                wrong.append((path.relative_to(ROOT), name))
            if parts[0] in TORCH and room not in TORCH_ROOMS:
                wrong.append((path.relative_to(ROOT), name))
            is_room = parts[0] == "penstock" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir()
            if is_room and parts[1] not in ALLOWED[room]:
                wrong.append((path.relative_to(ROOT), name))
    assert not wrong


def test_imports_are_seen(tmp_path: Path) -> None:
    """The checker itself finds what it is to find."""
    sample = ROOT / "penstock" / "runtime" / "program.py"
    assert "penstock.formats.program_reader.read_program" in imports_of(sample)


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return result.stdout


def test_loading_imports_no_torch() -> None:
    out = run(
        "import penstock, sys; penstock.load; import penstock.cli.runners;"
        "print(sorted({m.split('.')[0] for m in sys.modules}"
        " & {'torch', 'torchao', 'executorch', 'scipy', 'pandas', 'PIL', 'penstock.compiler'}))"
    )
    assert out.strip() == "[]"


def test_compiler_is_imported_when_asked_for() -> None:
    out = run(
        "import penstock, sys; print('penstock.compiler' in sys.modules, 'lower' in dir(penstock));"
        "\ntry: penstock.nothing\nexcept AttributeError as e: print(e)"
    )
    assert out.split("\n")[:2] == ["False True", "module 'penstock' has no attribute 'nothing'"]

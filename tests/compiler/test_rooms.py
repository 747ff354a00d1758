"""Who may import whom within the compiler (design, section 2)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

COMPILER = Path(__file__).parents[2] / "penstock" / "compiler"
PREFIX = "penstock.compiler."

#: room -> the rooms beside it that it may import. What else stands in the folder is open to none
#: of them, but for steps and progress, which import nothing.
ALLOWED = {
    "fx": set(),
    "delegate/lowering": {"fx"},
    "delegate/operators": {"fx", "delegate/lowering"},
    "delegate/passes": set(),
    "delegate": {"fx", "delegate/lowering", "delegate/operators", "delegate/passes"},
    "rewrite": {"fx", "delegate", "delegate/operators"},
    "capture": {"fx", "rewrite"},
    "quantize": {"fx", "rewrite", "delegate/operators"},
    "program": {"fx", "delegate", "capture"},
}
OPEN = {"steps", "progress"}
#: Arithmetic that an operator and a pass share.
SHARED = {"delegate/fixed_point"}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                name = whole if _file(whole) else node.module
                if name.startswith(PREFIX) and _file(name):
                    found.add(name.removeprefix(PREFIX).replace(".", "/"))
    return found


def _file(module: str) -> bool:
    place = COMPILER / module.removeprefix(PREFIX).replace(".", "/")
    return module.startswith(PREFIX) and (place.with_suffix(".py").exists() or place.is_dir())


def room_of(name: str) -> str:
    """The longest room that a module, or a package, is in."""
    return max((room for room in ALLOWED if f"{name}/".startswith(f"{room}/")), key=len, default="")


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_go_down_only(room: str) -> None:
    own = [p for p in sorted((COMPILER / room).rglob("*.py")) if _room_of_file(p) == room]
    assert own
    wrong = []
    for path in own:
        for name in imported(path) - OPEN - SHARED:
            other = room_of(name)
            if other != room and other not in ALLOWED[room]:
                wrong.append((str(path.relative_to(COMPILER)), name))
    assert not wrong


def _room_of_file(path: Path) -> str:
    return room_of(str(path.relative_to(COMPILER).with_suffix("")).removesuffix("/__init__"))


def test_arrows_are_seen() -> None:
    assert "delegate/operators/registry" in imported(COMPILER / "quantize" / "plan.py")
    assert room_of("delegate/operators/registry") == "delegate/operators"
    assert room_of("delegate/operators") == "delegate/operators" and room_of("pipeline") == ""

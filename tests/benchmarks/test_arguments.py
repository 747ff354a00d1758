"""The commands of ``benchmarks`` say what they take, and refuse what they do not know."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ROOT, arguments

COMMANDS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_parses_its_arguments(name: str) -> None:
    """By ``argparse``, itself or through ``benchmarks.arguments``: so all know ``--help``."""
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8"))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls & {"argparse.ArgumentParser", "parser_of", "names_given", "positionals"}


def test_help_and_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.names_given("About 100% of it.", "MODEL", ["b", "a"], ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "About 100% of it." in shown and "a, b" in shown
    with pytest.raises(SystemExit) as ended:
        arguments.names_given("", "MODEL", ["b", "a"], ["a", "c"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: unknown model 'c'; the valid names are: a, b\n"
    assert arguments.names_given("", "MODEL", ["b", "a"], ["b"]) == ["b"]
    assert arguments.names_given("", "MODEL", ["ab"], ["b"], parts=True) == ["b"]
    assert arguments.names_given("", "MODEL", ["b", "a"], []) == []
    assert arguments.positionals("", "x", "y", given=["1", "2"]) == ["1", "2"]
    with pytest.raises(SystemExit):
        arguments.positionals("", "x", "y", given=["1"])


def test_a_command_by_itself() -> None:
    """``benchmarks.zoo``, whose arguments are names of models."""
    importlib.import_module("benchmarks.zoo")
    for given, code in ((["--help"], 0), (["nothing_like_it"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.zoo", *given],
            capture_output=True, text=True, cwd=Path(ROOT), check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and "mv2" in done.stdout + done.stderr

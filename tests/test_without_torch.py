"""What a machine without torch says to somebody who wants to compile."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_TORCH = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchao"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_line_says_what_to_install() -> None:
    ended = run("from penstock.cli.main import main; main()", "compile", "linear")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "pip install 'penstock-xnnpack[compile]'" in ended.stderr


def test_lower_says_what_to_install() -> None:
    ended = run(
        "import penstock\n"
        "try:\n"
        "    penstock.lower\n"
        "except penstock.BackendUnavailableError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'penstock-xnnpack[compile]'" in ended.stdout


def test_other_missing_modules_are_not_dressed_up() -> None:
    ended = run("from penstock.errors import for_missing_package as f\n"
                "print(f(ModuleNotFoundError('x', name='elsewhere')))")  # fmt: skip
    assert ended.stdout.strip() == "None"

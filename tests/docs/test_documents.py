"""Every command and every code block in README.md, docs/ and the example is run.

A file's blocks run in order, in one folder: ``python`` blocks in one namespace, ``bash`` blocks
with the command line's programs on the path. A ``text`` block right after one of them is what it
prints; ``...`` in it stands for anything. Blocks in other languages are not code (``mermaid``).
Of what sets up the environment that the tests run in, it is only seen that it is there: ``make``
targets, and the activation of ``.venv``. Nothing else is left out, unless a comment before the
block says why (``<!-- not run: needs the network -->``), with one of the reasons below.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "xnnpack" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
RUN = ("python", "bash")
NOT_CODE = ("text", "mermaid")
#: The reasons for which a block may be marked as not run.
REASONS = {"needs the network", "takes many minutes"}
ACTIVATION = ". .venv/bin/activate"
PROGRAMS = {
    "python3": "",
    "penstock": "-m penstock",
    "xnn_executor_runner": '-c "from penstock.cli.runners import xnn_executor_runner as r; r()"',
    "executor_runner": '-c "from penstock.cli.runners import executor_runner as r; r()"',
}
#: The functions behind the programs, for those that need no process of their own.
ENTRIES = {
    "penstock": "penstock.cli.main:main",
    "xnn_executor_runner": "penstock.cli.runners:xnn_executor_runner",
    "executor_runner": "penstock.cli.runners:executor_runner",
}
_BLOCK = re.compile(
    r"(?:^<!-- not run: ([^\n]*) -->\n+)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    # The text block that follows at once.
    expected: str | None
    # Why it is not run.
    skipped: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = list(_BLOCK.finditer(text))
    result = []
    for index, match in enumerate(found):
        following = found[index + 1] if index + 1 < len(found) else None
        expected = None
        if following is not None and following[2] == "text":
            between = text[match.end() : following.start()]
            expected = following[3] if not between.strip() else None
        line = text.count("\n", 0, match.start(2)) + 1
        result.append(Block(match[2], match[3], line, expected, match[1]))
    return result


def page_name(page: Path) -> str:
    return page.name if page.parent in (ROOT, ROOT / "docs") else page.parent.name


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_say_what_they_are(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= {*RUN, *NOT_CODE}
    assert page.read_text().count("\n```") % 2 == 0


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_only_what_may_be_is_left_out(page: Path) -> None:
    skipped = [block.skipped for block in blocks(page) if block.skipped is not None]
    assert set(skipped) <= REASONS
    assert page.read_text().count("<!-- not run") == len(skipped)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in RUN for b in blocks(page))],
    ids=page_name,
)  # fmt: skip
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, programs = tmp_path / "work", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, arguments in PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{folder}")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "100")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language not in RUN or block.skipped is not None:
            continue
        run = _python if block.language == "python" else _bash
        printed = run(block, namespace, f"{page.name}:{block.line}")
        if block.expected is not None:
            _compare(block.expected, printed, f"{page.name}:{block.line}")


def _python(block: Block, namespace: dict[str, Any], place: str) -> str:
    # A first line "# file.py" names the file that the reader is told to make.
    first = re.match(r"# (\w+\.py)\n", block.text)
    if first:
        Path(first[1]).write_text(block.text)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, place, "exec"), namespace)
    return printed.getvalue()


def _bash(block: Block, _namespace: dict[str, Any], place: str) -> str:
    lines = block.text.splitlines()
    for line in lines:
        if line.startswith("make "):
            target = line.split()[1]
            asked = ["make", "-n", "-C", str(ROOT), target]
            assert subprocess.run(asked, capture_output=True, check=False).returncode == 0, line
    kept = [line for line in lines if line.strip()]
    kept = [line for line in kept if not line.startswith("make ") and line != ACTIVATION]
    commands = [_entry(line) for line in kept]
    if all(command is not None for command in commands):
        return "".join(_in_this_process(*command) for command in commands if command is not None)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(kept)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{place}: {done.stderr}"
    return done.stdout


def _entry(line: str) -> tuple[str, list[str]] | None:
    """The function that the command calls, and its arguments, if it is one of ours."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # it goes on in the next line
        return None
    if set(words) & {"|", ">", "||", "&&", ";", "2>&1"}:
        return None
    if words[:2] == ["python3", "-m"] and words[2].startswith("examples."):
        return f"{words[2]}:main", words[2:]
    if words and words[0] in ENTRIES:
        return ENTRIES[words[0]], words
    return None


def _in_this_process(entry: str, words: list[str]) -> str:
    """Importing torch for every command would take most of the time."""
    module, _, function = entry.partition(":")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", words)
        try:
            getattr(importlib.import_module(module), function)()
        except SystemExit as end:
            assert not end.code, f"{words} ends with {end.code}"
    return printed.getvalue()


def _compare(expected: str, printed: str, place: str) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    matches = doctest.OutputChecker().check_output(expected, printed, options)
    assert matches, f"{place} prints\n{printed}\nand not\n{expected}"


def test_generated_pages_are_up_to_date() -> None:
    check = [sys.executable, "-m", "docs.generate", "--check"]
    done = subprocess.run(check, cwd=ROOT, check=False)
    assert done.returncode == 0, "docs/operators.md is out of date; run: make docs"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


#: Where the names that the guide for contributors gives have to be.
_SOURCES = ("*.py", "*.c", "*.h", "*.js", "*.toml", "*.txt", "*.md", "Makefile")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")


def test_what_the_guide_names_is_there() -> None:
    """Files, functions and classes in backticks outside of its code blocks."""
    guide = _BLOCK.sub("", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    spans = re.findall(r"`([^`\s_][^`\s]*)`", guide)  # no commands, no ends of names
    named = {word for span in spans for word in _WORD.findall(span)}
    listed = subprocess.run(
        ["git", "ls-files", "--", *_SOURCES, ":!*CONTRIBUTING.md", ":!CHANGELOG.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    if not listed:
        pytest.skip("not a work tree of git")
    there = " ".join(listed)
    for name in listed:
        there += (ROOT / name).read_text(encoding="utf-8", errors="replace")
    assert [word for word in sorted(named) if word not in there] == []

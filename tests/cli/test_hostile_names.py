"""Names out of files, and files' own names: nothing in them reaches a terminal or a page as more
than text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from children import environment
from cli_harness import Done, Shell
from rich.panel import Panel
from rich.table import Table

import penstock
from penstock.cli.safe_console import SafeConsole
from penstock.formats.program_writer import write_program
from penstock.formats.sources import KEY, MethodSources, Origin, decode_sources, encode_sources
from penstock.text import one_line, printable, prose

STOCK = Path(__file__).parents[1] / "formats" / "stock"

#: A title for the window, red, a script, text from right to left, a line, a control of 8 bits.
EVIL = "\x1b]0;x\x07\x1b[31m</script><script>alert(1)</script>\u202e\n\x9b31m[/dim][bold"
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.linear(x)) * 2


def quiet(done: Done, *, code: int = 0) -> None:
    assert done.returncode == code, done.stderr
    assert not OBEYED.search(done.stdout + done.stderr)
    if code:
        assert done.stderr.count("error: ") == 1


@pytest.fixture
def evil(shell: Shell) -> str:
    """A program whose method, origins and data have such names; it is named so itself."""
    torch.manual_seed(0)
    program = penstock.lower(Net().eval(), (torch.randn(2, 8),)).program
    (method,) = program.methods
    delegates = decode_sources(program.named_data[KEY])[method.name].delegates
    origin = Origin(EVIL, EVIL, EVIL)
    sources = MethodSources(
        tuple(origin for _ in method.instructions),
        tuple(tuple(origin for _ in one) for one in delegates),
    )
    named = {**program.named_data, KEY: encode_sources({EVIL: sources}), f"a{EVIL}": b"1234"}
    data = write_program(replace(program, methods=[replace(method, name=EVIL)], named_data=named))
    name = f"{EVIL.replace('/', '_')}.pte"
    (shell.folder / name).write_bytes(bytes(data))
    (shell.folder / "plain.pte").write_bytes(bytes(data))
    return name


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "{0}"), ("inspect", "{0}", "--nodes"), ("inspect", "{0}", "--json"),
        ("run", "{0}"), ("run", "{0}", "--json"), ("run", "{0}", "--output-file", "{0}.npz"),
        ("profile", "{0}", "--runs", "1"), ("profile", "{0}", "--runs", "1", "--by", "module"),
        ("profile", "{0}", "--runs", "1", "--etdump", "{0}.etdump"),
        ("compare", "{0}", "plain.pte"),
        ("compare", "{0}", "--engine-a", "auto", "--engine-b", "xnnpack"),
        ("bench", "{0}", "--seconds", "0.1", "--launches", "1"),
    ],
)  # fmt: skip
def test_terminals(shell: Shell, evil: str, arguments: tuple[str, ...]) -> None:
    quiet(shell.call("penstock", *(one.format(evil) for one in arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "no{0}"), ("run", "{0}", "--method-name", "{0}"), ("inspect", "no{0}"),
        ("run", "{0}", "--inputs", "no{0}"), ("run", "{0}", "--labels", "no{0}"),
        ("run", "{0}", "--data-path", "no{0}"), ("profile", "{0}", "--by", "{0}"),
        ("run", "{0}", "--engine", "{0}"), ("compare", "{0}", "no{0}"), ("generate", "{0}", "Hi"),
        ("compile", "no{0}.pt2"), ("compile", "no{0}"), ("run", "plain.pte", "--inputs", "{0}"),
    ],
)  # fmt: skip
def test_errors(shell: Shell, evil: str, arguments: tuple[str, ...]) -> None:
    quiet(shell.call("penstock", *(one.format(evil) for one in arguments)), code=1)


@pytest.mark.parametrize("command", ["inspect", "profile", "compare"])
def test_pages(shell: Shell, evil: str, command: str) -> None:
    options = {"inspect": [evil], "profile": [evil, "--runs", "1"], "compare": [evil, "plain.pte"]}
    done = shell.call("penstock", command, *options[command], "--html", "page.html")
    if "no scripts for pages" in done.stderr:
        pytest.skip("the pages are not built")
    quiet(done)
    page = Path("page.html").read_text()
    assert "alert(1)" in page and "<script>alert" not in page


def test_traces_are_json(shell: Shell, evil: str) -> None:
    quiet(shell.call("penstock", "profile", evil, "--runs", "1", "--trace", "trace.json"))
    assert "traceEvents" in json.loads(Path("trace.json").read_text())


def test_names_that_are_no_text(shell: Shell) -> None:
    """Linux's names are bytes."""
    name = os.fsdecode(b"a\xff\xfe.pte")
    penstock.lower(Net().eval(), (torch.randn(2, 8),)).save(shell.folder / name)
    for arguments in (("run", name), ("inspect", name), ("profile", name, "--runs", "1")):
        quiet(shell.call("penstock", *arguments))
    quiet(shell.call("penstock", "run", f"no{name}"), code=1)


def test_whatever_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich's own styles stay."""
    console = SafeConsole(force_terminal=True, width=60, highlight=False, legacy_windows=False)
    table = Table(title="\x1b]0;x\x07title")
    table.add_column("\x1b[2Jhead")
    table.add_row("\x9b31mcell")
    console.print(Panel(table, title="\x07panel"), style="red")
    console.print("[bold]one[/bold]\ntwo\x08")
    found = capsys.readouterr().out
    for text in ("?]0;x", "title", "?[2Jhea", "?31mcel", "panel", "two"):
        assert text in found
    assert "\x1b[1mone\x1b[0m\n" in found
    assert not re.search(r"[\x07\x08\x9b]|\x1b(?!\[[0-9;]*m)", found)


def test_text() -> None:
    assert printable("a\x1b[0m\udcff") == "a?[0m?"
    assert one_line("a\n b\x1bc\x1cd") == "a b?c d"
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"
    assert prose(f"{family}\n\tb\x1b]0;x\x07\r\x9b\udcff") == f"{family}\n\tb?]0;x????"


@pytest.mark.parametrize("command", [("inspect",), ("profile", "--runs", "1")])
def test_a_terminal_that_lacks_characters(tmp_path: Path, command: tuple[str, ...]) -> None:
    """What its encoding has no characters for is escaped."""
    shutil.copy(STOCK / "image_fp32.pte", tmp_path / "nétz 你.pte")
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *command, "nétz 你.pte"],
        cwd=tmp_path, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"n\xe9tz \u4f60.pte" in done.stdout

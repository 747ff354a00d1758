"""``penstock compile | generate | chat`` with language models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import folder
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.errors import InputError


def penstock(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        input=given, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    path = folder("llama2", place)
    done = CliRunner().invoke(
        app, ["compile", str(path), "--scheme", "none", "--max-length", "40", "-o", str(place)]
    )
    assert done.exit_code == 0, done.output
    assert (place / "llama2_fp32.tokenizer.json").is_file()
    return place / "llama2_fp32.pte"


def test_generate(compiled: Path) -> None:
    options = ("--max-tokens", "6", "--temperature", "2.5", "--seed", "3", "-t", "1")
    done = penstock("generate", str(compiled), "Hello", *options)
    assert done.returncode == 0
    assert "tokens/s" in done.stderr and done.stdout.endswith("\n")
    again = penstock("generate", str(compiled), "Hello", *options, "--quiet")
    assert again.stdout == done.stdout and not again.stderr


def test_chat(compiled: Path) -> None:
    lines = "hello\n/back\nhello\n/what\n/new\n/quit\nnever\n"
    done = penstock("chat", str(compiled), "--max-tokens", "4", "-t", "1", given=lines)
    assert done.returncode == 0
    assert done.stderr.count("tokens/s") == 2
    first, second = done.stdout.splitlines()[:2]
    assert first == second  # greedy, and the first turn was forgotten


def test_the_contexts_end_leaves_the_program(compiled: Path) -> None:
    lines = "x" * 60 + "\nhello\n"
    done = penstock("chat", str(compiled), "--max-tokens", "2", given=lines)
    assert done.stderr.count("error: the prompt has") == 1
    assert "tokens/s" in done.stderr
    assert done.returncode == 1, "a script would take a message without an answer for answered"


def test_chat_without_an_input(compiled: Path) -> None:
    code = f"{sys.executable} -m penstock chat {compiled} <&-"
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "error" not in done.stderr


def test_wrong_options_end_a_chat_at_once(compiled: Path) -> None:
    done = penstock("chat", str(compiled), "--temperature", "-1", given="hello\nhello\n")
    assert done.returncode == 1
    assert done.stderr == "error: temperature is -1.0; it must be 0 or more\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "gone.pte", "x"], "no file gone.pte"),
        (["generate", "smollm2", "x"], "the one that penstock compile smollm2 makes"),
        (["chat", "m.gguf"], "the one that penstock compile m.gguf makes"),
        (["compile", "gone.gguf"], "no file gone.gguf"),
        (["compile", "mv2", "--max-length", "5"], "--max-length is for language models"),
        (["compile", ".", "--quantize"], "--quantize is not for language models"),
        (["compile", "."], "has no config.json"),
    ],
)
def test_wrong_use(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError) and said in str(done.exception)


def test_nothing_in_a_vocabulary_is_obeyed(compiled: Path, tmp_path: Path) -> None:
    """Each token is a title for the terminal's window."""
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(compiled.with_suffix(".tokenizer.json").read_text())
    words = {f"\x1b]0;{i}\x07\x9b31m": i for i in range(256)}
    tokenizer["model"] = {"type": "WordLevel", "vocab": words, "unk_token": next(iter(words))}
    tokenizer.update(pre_tokenizer=None, decoder=None, normalizer=None)
    path.write_text(json.dumps(tokenizer))
    options = ("--max-tokens", "4", "-t", "1", "--tokenizer", str(path))
    done = penstock("generate", str(compiled), "Hello", *options)
    assert done.returncode == 0 and "?]0;" in done.stdout
    assert not {"\x1b", "\x07", "\x9b"} & set(done.stdout + done.stderr)

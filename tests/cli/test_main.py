"""What all commands share: help with examples, completion, Ctrl-C."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from children import interruptible
from cli_harness import Shell

import penstock
from penstock.cli.completion import among, files, models, several
from penstock.cli.console import errors_in_one_line
from penstock.cli.main import app
from penstock.cli.safe_console import SafeConsole
from penstock.zoo.registry import ENTRIES

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_can_be_parsed(name: str) -> None:
    lines = [line.strip() for line in (COMMANDS[name].help or "").splitlines()]
    examples = [line for line in lines if line.startswith("Example: ")]
    assert examples
    for example in examples:
        program, command, *arguments = shlex.split(example.removeprefix("Example: "))
        assert (program, command) == ("penstock", name)
        COMMANDS[name].make_context(name, arguments)


def test_help_shows_the_example(shell: Shell) -> None:
    shown = shell.call("penstock", "compile", "--help").stdout
    assert "Example: penstock compile mv2" in shown


def test_version(shell: Shell) -> None:
    assert shell.call("penstock", "--version").stdout == f"penstock {penstock.__version__}\n"


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (["run", "m.pte", "--inputs", ""], "--inputs"),
        (["run", "m.pte", "--output="], "--output-file"),
        (["inspect", "m.pte", "--html="], "--html"),
        (["compile", "add", "--output-dir", ""], "--output-dir"),
        (["bench", "m.pte", "--model", ""], "--model"),
        (["generate", "m.pte", "hello", "--stop", "a", "--stop", ""], "--stop"),
        (["compare", "a.pte", "b.pte", "--data-path-a", ""], "--data-path-a"),
    ],
)
def test_an_empty_value_is_an_error(given: list[str], option: str, shell: Shell) -> None:
    """And does not pass for an option that was not given."""
    shell.fails("penstock", *given, message=f"{option} is empty; give it a value or leave it out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--bogus"], "No such option: --bogus"),
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? (see penstock --help)"),
        (["compile"], "Missing argument 'model' (see penstock compile --help)"),
        (["run", "m.pte", "--threads", "x"], "Invalid value for '--threads'"),
        (["compile", "add", "--output-dir"], "Option '--output-dir' requires an argument"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(
    given: list[str], message: str, shell: Shell
) -> None:
    done = shell.call("penstock", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_no_file_is_written_over_one_that_is_read(shell: Shell) -> None:
    """Nor over another one of the same command."""
    for name in ("x.npy", "m.pte", "w.pt"):
        (shell.folder / name).write_text("mine")
    for given, message in (
        (["run", "m.pte", "--inputs", "x.npy", "--output", "x.npy"], "which --inputs names too"),
        (["profile", "m.pte", "--trace", "m.pte"], "--trace would write to m.pte"),
        (["profile", "m.pte", "--html", "a", "--trace", "./a"], "which --html names too"),
        (["compile", "add", "--weights", "w.pt", "--output", "w.pt"], "which --weights names too"),
    ):
        shell.fails("penstock", *given, message=message)
    assert {path.read_text() for path in shell.folder.glob("?.*")} == {"mine"}
    shell.compiled("add", "--output", "add")  # the name of the model is no file


def test_a_directory_is_not_named_like_a_file(shell: Shell) -> None:
    """``-o`` is the directory, as in ExecuTorch's script."""
    shell.fails(
        "penstock", "compile", "add", "-o", "add.pte", message="add.pte is named like a file"
    )
    (shell.folder / "old.pte").mkdir()
    assert shell.call("penstock", "compile", "add", "-o", "old.pte").returncode == 0


def test_an_empty_name_in_a_list_is_an_error(shell: Shell) -> None:
    given = ["run", "m.pte", "--inputs", "a.npy,"]
    shell.fails("penstock", *given, message="'a.npy,' has an empty name in it")


def completed(line: str, folder: Path) -> list[str]:
    """What bash's script is given for ``line``, the cursor at its end."""
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    done = subprocess.run(
        [sys.executable, "-m", "penstock"],
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1), "_PENSTOCK_COMPLETE": "complete_bash",
        },
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split()


def test_completion(tmp_path: Path) -> None:
    for name in ("a.pte", "b.pte", "notes.txt"):
        (tmp_path / name).touch()
    assert completed("penstock ins", tmp_path) == ["inspect"]
    assert completed("penstock compile efficient", tmp_path) == [
        "efficientnet_b0", "efficientnet_lite0",
    ]  # fmt: skip
    assert completed("penstock run ", tmp_path) == ["a.pte", "b.pte"]
    assert "static_per_channel" in completed("penstock compile mv2 --scheme st", tmp_path)


def test_completion_is_offered_and_shown(shell: Shell) -> None:
    shown = shell.call("penstock", "--help").stdout
    assert "--install-completion" in shown and "--show-completion" in shown


def test_completion_of_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/two/deep.pte", "one/two/deep.txt", "a.PTE", "b.pt2", ".hidden/x.pte"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    programs = files(".pte")
    assert programs("") == ["a.PTE", "one/"]
    assert programs("o") == ["one/two/deep.pte"]
    assert programs("one/two/d") == ["one/two/deep.pte"]
    assert programs("nowhere/") == [] and programs("x") == []
    assert programs(".h") == [".hidden/x.pte"]
    assert models("b") == ["b.pt2"] and models("smo") == ["smollm2"]
    assert set(ENTRIES) <= set(models(""))
    assert among("auto", "xnnpack")("x") == ["xnnpack"]
    assert several("torch", "openvino")("torch,") == ["torch,openvino"]
    assert several("torch", "openvino")("o") == ["openvino"]
    (tmp_path / "with blank.pte").touch()
    assert programs("") == []  # the shell's own completion quotes it


@pytest.mark.parametrize("moment", ["import torch", "capture", "calibrate"])
def test_ctrl_c_ends_a_compile_with_one_line(moment: str, tmp_path: Path) -> None:
    """In each stage: nothing is left, and exit code 130."""
    code = (
        "import os, signal, sys\n"
        "from penstock.cli import console\n"
        "stage = console.Stages.stage\n"
        "def interrupting(self, name, total=None):\n"
        f"    if name == {moment!r}:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    return stage(self, name, total)\n"
        "console.Stages.stage = interrupting\n"
        "from penstock.cli.main import main\n"
        "sys.argv = ['penstock', 'compile', 'linear', '-q', '--quiet']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=interruptible,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_program_runs(tmp_path: Path, shell: Shell) -> None:
    shell.compiled("mv2", "--weights", "random", "--output", "m.pte")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "penstock", "run", "m.pte", "-n", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=shell.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=interruptible,
    )  # fmt: skip
    maps = Path(f"/proc/{process.pid}/maps")
    if not maps.exists():
        process.kill()
        pytest.skip("needs /proc")
    for _ in range(600):
        if "m.pte" in maps.read_text():  # it is loaded
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_an_interrupt_while_a_class_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    """What Python before 3.12 makes of it."""
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        raise RuntimeError("Error calling __set_name__ on 's'") from KeyboardInterrupt()
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("module", "places"),
    [
        ("penstock", ("numpy", "typer", "rich", "penstock.runtime.program")),
        ("examples.xnnpack.aot_compiler", ("rich", "penstock.zoo.registry")),
    ],
)
def test_an_interrupt_while_it_imports(module: str, places: tuple[str, ...]) -> None:
    """One line, whatever is being imported: the process interrupts itself at several places. (The
    children of a background job would ignore that.)"""
    for place in places:
        code = (
            "import os, runpy, signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "class Stop:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {place!r}:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Stop())\n"
            "sys.argv = ['x', 'models']\n"
            f"runpy.run_module({module!r}, run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert (done.returncode, done.stderr) == (130, "interrupted\n"), place


@pytest.mark.parametrize("command", ["penstock inspect", "xnn_executor_runner --model_path"])
def test_an_error_is_not_on_stdout_where_stderr_is_closed(command: str, tmp_path: Path) -> None:
    name, *arguments = [*command.split(), "no.pte"]
    done = subprocess.run(
        [sys.executable, "-c", f"import penstock.cli.entry as e; e.{name}()", *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(2),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")


def test_no_color_leaves_no_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in (True, False):
        monkeypatch.setenv("NO_COLOR", "" if wanted else "1")
        console = SafeConsole(file=io.StringIO(), force_terminal=True, color_system="standard")
        console.print("[bold]one[/bold] [red]two[/red]")
        assert ("\x1b" in console.file.getvalue()) is wanted  # type: ignore[attr-defined]


def test_no_color_in_help() -> None:
    for value in ("", "1"):
        environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": value}
        done = subprocess.run(
            [sys.executable, "-m", "penstock", "--help"], capture_output=True, text=True,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert ("\x1b" in done.stdout) is (not value), done.stdout[:200]

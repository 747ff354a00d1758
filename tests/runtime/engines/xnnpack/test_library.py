"""Finding, loading and distrusting XNNPACK's library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import BackendUnavailableError
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.xnnpack import define, library
from penstock.runtime.engines.xnnpack.bindings import Unary
from penstock.runtime.engines.xnnpack.engine import check_library

ROOT = Path(__file__).parents[4]
NAME = library.file_name("executorch_backend_xnnpack")


@pytest.fixture(scope="module")
def good() -> Path:
    return library.find()


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def test_the_variable_names_a_file_or_its_folder(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (good, good.parent):
        monkeypatch.setenv(library.VARIABLE, str(path))
        assert library.find() == good


def test_the_variable_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "nothing.so"):
        monkeypatch.setenv(library.VARIABLE, str(path))
        with pytest.raises(BackendUnavailableError, match=f"{library.VARIABLE}={path}"):
            library.find()


def test_the_packed_library_comes_before_an_installed_executorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(library.VARIABLE, raising=False)
    packed, installed = tmp_path / "packed", tmp_path / "site" / "executorch" / "lib"
    for folder in (packed, installed):
        folder.mkdir(parents=True)
        (folder / NAME).touch()
    # Importing this package would fail; finding the library must not.
    (installed.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "executorch", raising=False)
    monkeypatch.setattr(library, "PACKED", packed)
    assert library.find() == packed / NAME
    (packed / NAME).unlink()
    assert library.find() == installed / NAME
    (installed / NAME).unlink()
    with pytest.raises(BackendUnavailableError, match=f"{NAME}.*missing.*executorch==1.5.1"):
        library.find()


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no library at all")
    with pytest.raises(BackendUnavailableError, match="cannot be loaded") as caught:
        library.open_library(tmp_path / NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses a library of Linux")
def test_a_library_without_our_functions(good: Path, tmp_path: Path) -> None:
    other = good.with_name(library.file_name("executorch"))
    shutil.copy(other, tmp_path / NAME)
    with pytest.raises(BackendUnavailableError, match="of another version.*xnn_initialize"):
        library.open_library(tmp_path / NAME)


@pytest.mark.parametrize("wrong", [Unary.ABS, Unary.EXP, Unary.TANH])
def test_the_self_test_notices_other_numbers(
    good: Path, wrong: Unary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another version, which numbers its operators otherwise."""
    opened = library.open_library(good)
    check_library(opened)
    monkeypatch.setitem(define.DEFINE, NodeKind.NEGATE, define._unary(wrong))
    with pytest.raises(BackendUnavailableError, match="fails its self-test.*executorch==1.5.1"):
        check_library(opened)


def test_a_missing_library_is_reported_once_and_clearly(tmp_path: Path) -> None:
    code = (
        "from penstock.runtime.engines.xnnpack.engine import XnnpackEngine\n"
        "from penstock.errors import PenstockError\n"
        "try: XnnpackEngine()\n"
        "except PenstockError as error: print(type(error).__name__, error)\n"
    )
    done = fresh(code, PENSTOCK_XNNPACK_LIBRARY=str(tmp_path))
    assert done.stdout.startswith("BackendUnavailableError XNNPACK's library is not at")
    assert done.stdout.count("\n") == 1 and not done.stderr


def test_loading_is_quick_and_imports_neither_torch_nor_executorch() -> None:
    code = (
        "import sys, time\n"
        "from penstock.runtime.engines.xnnpack.engine import XnnpackEngine\n"
        "start = time.process_time()\n"
        "XnnpackEngine()\n"
        "seconds = time.process_time() - start\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(seconds, sorted(loaded & {'torch', 'executorch', 'typer', 'rich', 'ml_dtypes'}))\n"
    )
    best = 1.0  # second of the processor, to load the library and to test it
    for _ in range(3):
        done = fresh(code)
        assert done.returncode == 0, done.stderr
        seconds, modules = done.stdout.split(" ", 1)
        assert modules == "[]\n"
        best = min(best, float(seconds))
    assert best < 0.05

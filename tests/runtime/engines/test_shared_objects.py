"""Libraries that are something else, or not whole: one line, and no crash."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import penstock
from penstock.runtime.engines.native import library as native
from penstock.runtime.engines.shared_objects import open_shared
from penstock.runtime.engines.xnnpack import library as xnnpack

ROOT = Path(__file__).parents[3]
KINDS = ("text", "empty", "folder", "missing", "device", "other", "1000", "half", "one byte less")


def put(kind: str, good: Path, place: Path) -> str:
    """What stands where the library should; the ones beside it are whole."""
    for sibling in good.parent.glob("*.so"):
        shutil.copy(sibling, place)
    path = place / good.name
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "other":
        found = next(Path("/").glob(f"lib/*/{ctypes.util.find_library('m')}"), None)
        shutil.copy(found or sys.executable, path)
    elif kind == "device":
        return os.devnull
    elif kind != "missing":
        sizes = {"1000": 1000, "half": len(content) // 2, "one byte less": len(content) - 1}
        path.write_bytes({"text": b"no library\n" * 99, "empty": b""}.get(kind, b"") or
                         content[: sizes.get(kind, 0)])  # fmt: skip
    return str(path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pte"
    penstock.lower(torch.nn.Linear(8, 8).eval(), (torch.randn(2, 8),)).save(path)
    return path


def ran(program: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "run", str(program), *options],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' libraries are no ELF files")
@pytest.mark.parametrize("kind", KINDS)
def test_xnnpacks(kind: str, program: Path, tmp_path: Path) -> None:
    asked = put(kind, xnnpack.find(), tmp_path)
    done = ran(program, **{xnnpack.VARIABLE: asked})
    assert done.returncode == 1 and done.stderr.startswith("error: XNNPACK's library")
    assert done.stderr.count("\n") == 1 and not done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' libraries are no ELF files")
@pytest.mark.parametrize("kind", KINDS)
def test_our_own(kind: str, program: Path, tmp_path: Path) -> None:
    """Asked for by name it is an error; else XNNPACK does all the work, unless there is no file."""
    good = native.FOLDER / native.file_name()
    if not good.is_file():
        pytest.skip("our own kernels are not built here")
    asked = put(kind, good, tmp_path)
    environment, is_file = {native.VARIABLE: asked}, Path(asked).is_file()
    subject = "our own kernels" if is_file else native.VARIABLE
    done = ran(program, "--engine", "native", **environment)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {subject}")
    assert done.stderr.count("\n") == 1 and not done.stdout
    assert ran(program, **environment).returncode == (0 if is_file else 1)


def test_whole_libraries_are_opened() -> None:
    assert open_shared(xnnpack.find().parent / xnnpack.file_name(xnnpack.STEMS[0]))

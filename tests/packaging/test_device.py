"""An app: ExecuTorch's C++ runtime, with the libraries that an app links, gives our numbers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock import zoo

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("c++")
LIBRARIES = ("", "_threadpool", "_backend_xnnpack", "_kernels_optimized", "_kernels_quantized")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``examples/device``, built as docs/devices.md says."""
    found = importlib.util.find_spec("executorch")
    if COMPILER is None or found is None or not found.submodule_search_locations:
        pytest.skip("needs c++ and the executorch package")
    package = Path(next(iter(found.submodule_search_locations)))
    target = tmp_path_factory.mktemp("app") / "app"
    headers = package / "include"
    done = subprocess.run(
        [COMPILER, "-std=c++17", "-O1", "-w", "-DC10_USING_CUSTOM_GENERATED_MACROS",
         str(ROOT / "examples/device/main.cpp"), "-o", str(target), f"-I{headers}",
         f"-I{headers}/executorch/runtime/core/portable_type/c10", f"-L{package}/lib",
         f"-Wl,-rpath,{package}/lib", "-Wl,--no-as-needed",
         *(f"-lexecutorch{library}" for library in LIBRARIES)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return target


@pytest.mark.parametrize("quantize", [None, "static"])
def test_an_app_computes_what_we_do(app: Path, tmp_path: Path, quantize: str | None) -> None:
    model = zoo.create("mv3")
    path = tmp_path / "model.pte"
    penstock.lower(model.module, model.args, quantize=quantize).save(path)
    program = penstock.load(path, engine="xnnpack")
    (ours,) = program(np.ones((1, 3, 224, 224), np.float32))
    done = subprocess.run([app, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shape, _, numbers = done.stdout.splitlines()[0].removeprefix("output 0 ").partition("] ")
    assert shape == f"[{', '.join(map(str, ours.shape))}"
    theirs = np.array(numbers.split(), np.float32)
    if quantize:
        assert theirs.tobytes() == ours.ravel()[:5].tobytes()
    else:
        np.testing.assert_allclose(theirs, ours.ravel()[:5], rtol=1e-4, atol=1e-4)


def test_an_app_says_what_it_cannot_read(app: Path, tmp_path: Path) -> None:
    (tmp_path / "no.pte").write_bytes(b"\0" * 100)
    done = subprocess.run([app, tmp_path / "no.pte"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot be read" in done.stderr

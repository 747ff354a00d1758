"""The tests of our own kernels once more, with a library that was built with AddressSanitizer; and
those of the bindings to XNNPACK under valgrind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
sys.path.insert(0, str(ROOT / "build_backend"))

import native_library  # noqa: E402

FOLDER = Path(__file__).parent
#: Checks are calls: in line they make files of unrolled loops compile for many minutes.
FLAGS = (
    "-fsanitize=address", "--param=asan-instrumentation-with-call-threshold=0",
    "-fno-omit-frame-pointer", "-g", "-O1",
)  # fmt: skip
#: Not of kernels: the library's own file, whole models, which compile for minutes, and this file.
LEFT_OUT = ("test_library.py", "test_int8_models.py", "test_selftest.py", Path(__file__).name)
TESTS = sorted(path.name for path in FOLDER.glob("test_*.py") if path.name not in LEFT_OUT)


@pytest.fixture(scope="module")
def sanitizer() -> str:
    """What a process that loads such a library must have loaded before."""
    gcc = os.environ.get("CC", "gcc")
    # It looks for C++'s exceptions when the process starts, before torch brings its library.
    names = ("libasan.so", "libstdc++.so.6")
    try:
        found = [
            subprocess.check_output([gcc, f"-print-file-name={name}"], text=True).strip()
            for name in names
        ]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no gcc here")
    if not Path(found[0]).exists():
        pytest.skip("no AddressSanitizer here")
    return ":".join(path for path in found if Path(path).exists())


@pytest.fixture(scope="module")
def library(sanitizer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanitized")
    gcc = os.environ.get("CC", "gcc")

    def built(file: tuple[Path, tuple[str, ...]]) -> str:
        path, flags = file
        made = str(folder / f"{path.stem}.o")
        command = [gcc, *native_library.FLAGS, *FLAGS, *flags, "-c", str(path)]
        subprocess.check_call([*command, "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(built, native_library.sources(ROOT)))
    library = folder / "libsanitized.so"
    subprocess.check_call([gcc, "-shared", *FLAGS, *objects, "-o", str(library)])
    return library


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_nothing_is_read_or_written_outside(name: str, sanitizer: str, library: Path) -> None:
    """Beyond the bytes behind a block that kernels may read, which belong to it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-x", "-s", "-p", "no:cacheprovider", FOLDER / name],
        capture_output=True, text=True, cwd=ROOT,
        env={
            **os.environ, "PENSTOCK_NATIVE_LIBRARY": str(library), "LD_PRELOAD": sanitizer,
            "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert re.search(r"[1-9]\d* passed", done.stdout), done.stdout[-3000:]


#: Loads files and runs every method twice, on XNNPACK alone.
_RUN = """
import sys
import penstock
from penstock.cli.feeds import ones

for name in sys.argv[1:]:
    program = penstock.load(name, engine="xnnpack", threads=1)
    for method in map(program.method, program.methods):
        inputs = ones(method.inputs)
        method.run(inputs)
        method.run(inputs)
"""

#: The C library's loader reads texts by whole words.
_LOADER = """{
   loader
   Memcheck:Addr8
   fun:strncmp
   fun:is_dst
}
"""


@pytest.mark.slow
def test_the_bindings_under_valgrind(tmp_path: Path) -> None:
    """XNNPACK's own code too, which no compiler of ours has seen: no read or write outside of what
    was allocated."""
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind here")
    files = sorted((ROOT / "tests" / "formats" / "stock").glob("*.pte"))
    log, loader = tmp_path / "valgrind.txt", tmp_path / "loader.txt"
    loader.write_text(_LOADER)
    done = subprocess.run(
        ["valgrind", "--undef-value-errors=no", "--error-exitcode=9", f"--log-file={log}",
         f"--suppressions={loader}",
         sys.executable, "-c", _RUN, *files],
        capture_output=True, text=True, cwd=ROOT,
        env={
            **os.environ, "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-6000:] + done.stderr[-2000:]

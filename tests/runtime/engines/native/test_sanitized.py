"""The kernels' tests once more, with a library that was built with AddressSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
sys.path.insert(0, str(ROOT / "build_backend"))

import native_library  # noqa: E402

FLAGS = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g")
#: Those of the float kernels: the others may read some bytes past an input that lie in its page.
TESTS = ("test_products.py", "test_winograd.py")


@pytest.mark.slow
def test_nothing_is_read_or_written_outside(tmp_path: Path) -> None:
    gcc = os.environ.get("CC", "gcc")
    try:
        asan = subprocess.check_output([gcc, "-print-file-name=libasan.so"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no gcc here")
    if not Path(asan).exists():
        pytest.skip("no AddressSanitizer here")
    objects = []
    for path, flags in native_library.sources(ROOT):
        objects.append(str(tmp_path / f"{path.stem}.o"))
        command = [gcc, *native_library.FLAGS, *FLAGS, "-O1", *flags, "-c", str(path)]
        subprocess.check_call([*command, "-o", objects[-1]])
    library = tmp_path / "libsanitized.so"
    subprocess.check_call([gcc, "-shared", *FLAGS, *objects, "-o", str(library)])
    folder = Path(__file__).parent
    tests = [str(folder / name) for name in TESTS if (folder / name).exists()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        capture_output=True, text=True, cwd=ROOT,
        env={
            **os.environ, "PENSTOCK_NATIVE_LIBRARY": str(library), "LD_PRELOAD": asan,
            "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "passed" in done.stdout or "100%" in done.stdout

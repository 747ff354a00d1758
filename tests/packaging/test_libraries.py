"""The libraries in a wheel: whose code they are, and whether the notices say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

import libraries  # noqa: E402
import xnnpack_library  # noqa: E402
from libraries import Library  # noqa: E402

NOTICES = "penstock/runtime/engines/xnnpack/NOTICES.txt"
FOLDERS = ("penstock/runtime/engines/xnnpack/lib", "penstock/runtime/engines/native/lib")


def packed() -> dict[str, bytes]:
    """What a wheel for this machine holds of libraries and notices."""
    names = [p for folder in FOLDERS for p in sorted((ROOT / folder).glob("lib*"))]
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in names}
    tag = f"Tag: py3-none-{xnnpack_library.wheel_for().tag}\n"
    notices = (ROOT / NOTICES).read_bytes()
    return files | {NOTICES: notices, "penstock_xnnpack-0.dist-info/WHEEL": tag.encode()}


def test_the_notices_name_all_that_the_libraries_contain() -> None:
    files = packed()
    assert libraries.problems(files) == []
    found = set()
    for name, data in files.items():
        if name.endswith((".so", ".dylib")):
            found |= libraries.owners(Path(name).stem.removeprefix("lib"), libraries.read(data))
    assert {"XNNPACK", "cpuinfo", "ExecuTorch", "FlatBuffers", "Penstock"} <= found
    text = files[NOTICES].decode()
    # Headers leave no symbols; KleidiAI is in the libraries for arm64 alone.
    for heading in ("FXdiv", "FP16", "KleidiAI"):
        assert f"\n{heading}\n{'=' * len(heading)}\n" in text
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text


def test_what_is_not_named_is_found() -> None:
    files = packed()
    silent = files[NOTICES].decode().replace("XNNPACK\n=======", "").encode()
    (problem,) = libraries.problems({**files, NOTICES: silent})
    assert "has code of XNNPACK" in problem
    tag = files["penstock_xnnpack-0.dist-info/WHEEL"].replace(b"x86_64", b"riscv64")
    wrong = libraries.problems({**files, "penstock_xnnpack-0.dist-info/WHEEL": tag})
    if b"riscv64" in tag:
        assert len(wrong) == 4 and "not riscv64" in wrong[0]
    del files[next(name for name in files if name.endswith(("native.so", "native.dylib")))]
    assert libraries.problems(files) == ["3 libraries, not 4"]


@pytest.mark.parametrize(
    ("symbol", "owner"),
    [
        ("kai_run_rhs_pack_nxk_x16p2vlx2b_x16_x16_sme", "KleidiAI"),
        ("_ZN11flatbuffers8Verifier5CheckEb", "FlatBuffers"),
        ("_ZNK10executorch7runtime7Program4nameEv", "ExecuTorch"),
        ("_ZN7xnnpack11integer_powIiEET_S1_S1_", "XNNPACK"),
        ("pack_weights", "XNNPACK"),
        ("_ZN4absl5MutexC1Ev", "unknown (_ZN4absl5MutexC1Ev)"),
    ],
)
def test_owners(symbol: str, owner: str) -> None:
    symbols = frozenset({symbol, "_ZNSt6vectorIiSaIiEED1Ev", "_init"})
    library = Library("aarch64", symbols, frozenset(), ())
    assert libraries.owners("executorch_backend_xnnpack", library) == {owner}


def test_what_is_no_library_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        libraries.read(b"MZ, of Windows")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_a_library_that_needs_python_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("void PyErr_Clear(void); void pk_a(void) { PyErr_Clear(); }")
    made = tmp_path / "a.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(tmp_path / "a.c"), "-o", str(made)], check=True)
    files = packed()
    name = next(name for name in files if "penstock_native" in name)
    assert f"{name} needs Python" in libraries.problems({**files, name: made.read_bytes()})

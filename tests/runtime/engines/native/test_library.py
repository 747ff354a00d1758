"""The library of our own kernels: which instruction sets it finds and may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock.runtime.engines.native import library
from penstock.runtime.engines.native.families import FAMILIES
from penstock.runtime.engines.native.isa import NAMES, Isa, allowed

#: What Linux calls the features of a processor that each instruction set needs.
FEATURES = {
    Isa.NEON: {"asimd"},
    Isa.DOTPROD: {"asimddp"},
    Isa.I8MM: {"i8mm"},
    Isa.AVX2: {"avx2", "fma", "f16c"},
    Isa.AVXVNNI: {"avx_vnni"},
    Isa.AVX512: {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    Isa.AVX512VNNI: {"avx512_vnni"},
    Isa.AVX512VBMI: {"avx512vbmi"},
}


def test_detection_agrees_with_the_system() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = [set(line.split()) for line in lines if line.startswith(("flags", "Features"))]
    if not flags:
        pytest.skip("the system does not list the processor's features")
    expected = Isa.SCALAR
    for isa, features in FEATURES.items():
        if features <= flags[0]:
            expected |= isa
    assert library.shared_library().detected == expected


def test_a_lower_instruction_set_can_be_forced() -> None:
    every = Isa.SCALAR | Isa.AVX2 | Isa.AVX512 | Isa.AVX512VNNI
    assert allowed(every, "") == every
    assert allowed(every, "avx2") == Isa.SCALAR | Isa.AVX2
    assert allowed(every, "AVX512") == Isa.SCALAR | Isa.AVX2 | Isa.AVX512
    arm = Isa.SCALAR | Isa.NEON | Isa.DOTPROD | Isa.I8MM
    assert allowed(arm, "dotprod") == Isa.SCALAR | Isa.NEON | Isa.DOTPROD
    assert allowed(arm, "neon").names == ("scalar", "neon")
    assert allowed(Isa.SCALAR, "scalar").names == ("scalar",)
    with pytest.raises(penstock.InputError, match="PENSTOCK_ISA is 'sse'; choose scalar, avx2"):
        allowed(every, "sse")
    with pytest.raises(penstock.InputError, match="'avxvnni', which this machine lacks; it has sc"):
        allowed(every, "avxvnni")


def test_a_library_that_was_asked_for_is_not_left_out() -> None:
    """XNNPACK ran in its place, and nobody was told."""
    code = (
        "import sys, penstock\n"
        "try: penstock.load(sys.argv[1]).method()\n"
        "except penstock.InputError as error: print(error)\n"
    )
    stock = Path(__file__).parents[3] / "formats" / "stock" / "image_fp32.pte"
    done = subprocess.run(
        [sys.executable, "-c", code, str(stock)],
        env={**os.environ, library.VARIABLE: "/gone/library.so"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == (
        "PENSTOCK_NATIVE_LIBRARY is '/gone/library.so', which is no file; give the path of the"
        " library\n"
    ), done.stderr


def test_what_is_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(penstock.BackendUnavailableError, match="are not built"):
        library.open_library(tmp_path / library.file_name())
    (tmp_path / library.file_name()).write_bytes(b"\x7fELF, not really")
    with pytest.raises(penstock.BackendUnavailableError, match="cannot be used"):
        library.open_library(tmp_path / library.file_name())


def machine(isa: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "inspect", "--machine", "--json"],
        capture_output=True, text=True, env={**os.environ, "PENSTOCK_ISA": isa},
    )  # fmt: skip


def test_inspect_machine() -> None:
    detected = library.shared_library().detected
    for name in detected.names:
        done = machine(name)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["engines"]
        assert Path(found["xnnpack"]["library"]).is_file()
        native = found["native"]
        assert native["instruction_sets"] == list(detected.names)
        assert native["used"] == [n for n in detected.names if NAMES[n] <= NAMES[name]]
        assert set(native["kernels"]) == {family.name for family in FAMILIES}
    wrong = machine("mmx")
    assert wrong.returncode and "error: PENSTOCK_ISA is 'mmx'" in wrong.stderr

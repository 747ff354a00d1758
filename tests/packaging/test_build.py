"""The build hook: XNNPACK's library out of the ``executorch`` wheel, and Penstock's own wheel."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.errors import DISTRIBUTION, install_hint
from penstock.runtime.engines.xnnpack import library

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

import native_library  # noqa: E402
import target  # noqa: E402
import xnnpack_library  # noqa: E402
from xnnpack_library import FOLDER, STEMS, WHEELS, BuildError, Wheel  # noqa: E402

TAG = "manylinux_2_28_x86_64"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel that looks like the real one, in the only place where pip may look."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / f"executorch-1.5.1-cp311-cp311-{TAG}.whl"
    info = "executorch-1.5.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for stem in STEMS:
            archive.writestr(f"executorch/lib/lib{stem}.so", f"library {stem}")
        archive.writestr(f"{info}/licenses/LICENSE", "a licence")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: executorch\nVersion: 1.5.1\n"
        )
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: cp311-cp311-{TAG}\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return Wheel(TAG, hashlib.sha256(path.read_bytes()).hexdigest(), "lib", ".so")


def test_the_libraries_and_the_licence_are_packed_once(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = xnnpack_library.provide(tmp_path, wheel)
    assert folder == tmp_path / FOLDER
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["LICENSE.executorch", "SOURCE", *(f"lib{stem}.so" for stem in STEMS)]
    )
    assert (folder / "libexecutorch_threadpool.so").read_text() == "library executorch_threadpool"
    assert wheel.sha256 in (folder / "SOURCE").read_text()

    def fail(*arguments: object) -> Path:
        raise AssertionError("downloaded again")

    download = xnnpack_library.download
    monkeypatch.setattr(xnnpack_library, "download", fail)
    xnnpack_library.provide(tmp_path, wheel)
    # What is incomplete, or of another wheel, is fetched anew.
    (folder / "libexecutorch.so").unlink()
    with pytest.raises(AssertionError, match="again"):
        xnnpack_library.provide(tmp_path, wheel)
    monkeypatch.setattr(xnnpack_library, "download", download)
    assert (xnnpack_library.provide(tmp_path, wheel) / "libexecutorch.so").is_file()


def test_another_wheel_is_refused(wheel: Wheel, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"SHA-256 .*, expected 000.*PENSTOCK_WITHOUT_XNNPACK"):
        xnnpack_library.provide(tmp_path, replace(wheel, sha256="000"))
    assert not (tmp_path / FOLDER / "SOURCE").exists()


@pytest.mark.slow
def test_a_tampered_wheel_stops_the_build(tmp_path: Path) -> None:
    """``pip wheel .`` where an index offers XNNPACK's wheel with one byte changed: the build fails,
    names the hash, and leaves nothing."""
    source, links, made = (tmp_path / name for name in ("source", "links", "made"))
    left_out = shutil.ignore_patterns("lib", "node_modules", "__pycache__")
    for name in ("penstock", "build_backend", "native", "web"):
        shutil.copytree(ROOT / name, source / name, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    links.mkdir()
    wheel = xnnpack_library.wheel_for()
    # With a number of a build, which pip prefers to the same version without one.
    path = links / f"executorch-1.5.1-9-cp311-cp311-{wheel.tag}.whl"
    info = "executorch-1.5.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for stem in STEMS:
            name = f"{wheel.prefix}{stem}{wheel.suffix}"
            content = bytearray((ROOT / FOLDER / name).read_bytes())
            content[-1] ^= 1
            archive.writestr(f"executorch/lib/{name}", bytes(content))
        archive.writestr(f"{info}/licenses/LICENSE", "a licence")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: executorch\nVersion: 1.5.1\n"
        )
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: cp311-cp311-{wheel.tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(made), str(source)],
        capture_output=True, text=True, env={**os.environ, "PIP_FIND_LINKS": str(links)},
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "is not the wheel that Penstock was made for" in said
    assert digest in said and wheel.sha256 in said
    assert not list(made.glob("*.whl"))
    assert not (source / FOLDER / "SOURCE").exists()
    assert not list((source / FOLDER).glob(f"*{wheel.suffix}"))


def test_a_wheel_that_cannot_be_had(wheel: Wheel, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="pip cannot download executorch==1.5.1") as caught:
        xnnpack_library.provide(tmp_path, replace(wheel, tag="manylinux_2_28_riscv64"))
    assert "\n" not in str(caught.value)
    assert "PENSTOCK_WITHOUT_XNNPACK=1" in str(caught.value)


def test_platforms() -> None:
    assert xnnpack_library.wheel_for("linux", "x86_64").tag == TAG
    with pytest.raises(BuildError, match="no XNNPACK library for win32 AMD64") as caught:
        xnnpack_library.wheel_for("win32", "AMD64")
    # What is missing, what works all the same, and how to have that, in pip's last line.
    assert "can be compiled here and not run" in str(caught.value)
    assert "PENSTOCK_WITHOUT_XNNPACK=1" in str(caught.value)
    assert set(WHEELS) == set(native_library.TARGETS)
    assert all(len(wheel.sha256) == 64 for wheel in WHEELS.values())


def test_a_build_for_another_platform(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(target.VARIABLE, raising=False)
    assert target.target() == target.host() == (sys.platform, platform.machine())
    monkeypatch.setenv(target.VARIABLE, "linux-aarch64")
    assert xnnpack_library.wheel_for(*target.target()).tag == "manylinux_2_28_aarch64"
    monkeypatch.setenv(target.VARIABLE, "linux")
    with pytest.raises(ValueError, match="'linux'; write SYSTEM-MACHINE"):
        target.target()
    # Another platform's libraries do not stay beside those that were asked for.
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "libexecutorch.dylib").write_text("of macOS")
    xnnpack_library.provide(tmp_path, wheel)
    assert not list(folder.glob("*.dylib"))
    xnnpack_library.remove(tmp_path)
    assert not list(folder.glob("*.so"))


def test_no_host_is_named_in_the_build() -> None:
    for path in (ROOT / "build_backend").glob("*.py"):
        # The bill of materials says where the sources of what is bundled are.
        assert path.name == "sbom.py" or "://" not in path.read_text()


def test_the_wheel_holds_the_library_and_runs_without_its_surroundings(tmp_path: Path) -> None:
    """Built as ``pip install .`` builds it; run with NumPy and flatbuffers alone."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), "."],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = tmp_path.glob("*.whl")
    tag = xnnpack_library.wheel_for().tag
    assert built.name.endswith(f"-py3-none-{tag}.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        archive.extractall(unpacked)
    packed = {n for n in names if n.startswith(f"{FOLDER.as_posix()}/")}
    assert len(packed) == 5 and any(n.endswith("LICENSE.executorch") for n in packed)
    assert f"{FOLDER.parent.as_posix()}/NOTICES.txt" in names
    assert "penstock/py.typed" in names, "type checkers would not look at its annotations"
    assert not any(n.startswith(("tests/", "native/", "build_backend/", "web/")) for n in names)
    assert (native_library.FOLDER / native_library.file_name()).as_posix() in names
    assert {"penstock/pages/assets/inspect.js", "penstock/pages/assets/LICENSES.txt"} <= set(names)
    assert built.stat().st_size < 6_000_000
    code = (
        "import sys\n"
        "for name in ('torch', 'executorch', 'typer', 'rich', 'ml_dtypes'):\n"
        "    sys.modules[name] = None\n"
        "import penstock\n"
        "from penstock.runtime.engines.xnnpack.engine import XnnpackEngine, shared_library\n"
        "XnnpackEngine()\n"
        "from penstock.runtime.engines.native.library import shared_library as ours\n"
        "print(shared_library().path, ours().path)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    environment.pop("PENSTOCK_XNNPACK_LIBRARY", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.startswith(str(unpacked / FOLDER)), done.stderr
    assert str(unpacked / native_library.FOLDER) in done.stdout


def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the C files where no compiler is in sight."""
    shutil.copytree(ROOT / native_library.SOURCES, tmp_path / native_library.SOURCES)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_kernels_are_built_by_what_compiler_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcc = shutil.which("gcc")
    root = bare(tmp_path, monkeypatch)
    monkeypatch.setattr(native_library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(native_library.NoCompilerError, match="no CC, no ziglang package, no cc"):
        native_library.provide(root)
    monkeypatch.setenv("CC", str(tmp_path / "refuses"))
    (tmp_path / "refuses").write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    (tmp_path / "refuses").chmod(0o755)
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(native_library.CompilerError, match="no such flag"):
        native_library.provide(root)
    assert not (root / native_library.FOLDER / "SOURCE").exists()
    if gcc is None:
        pytest.skip("no gcc here")
    monkeypatch.setenv("CC", gcc)
    library = native_library.provide(root)
    built = library.stat().st_mtime_ns
    assert native_library.provide(root).stat().st_mtime_ns == built
    (root / native_library.SOURCES / "core.h").open("a").write("/* changed */\n")
    assert native_library.provide(root).stat().st_mtime_ns != built


def test_files_for_other_processors_are_left_out() -> None:
    every = {path.name for path in (ROOT / native_library.SOURCES).glob("*.c")}
    x86 = {path.name for path, _ in native_library.sources(ROOT, "x86_64")}
    arm = {path.name: flags for path, flags in native_library.sources(ROOT, "aarch64")}
    other = {path.name for path, _ in native_library.sources(ROOT, "riscv64")}
    assert x86 | set(arm) == every and x86 & set(arm) == other and "isa.c" in other
    assert not any("avx" in name for name in arm)
    assert not any("neon" in name for name in x86)
    assert arm["qs8_conv_i8mm.c"] == ("-mcpu=generic+dotprod+i8mm",)
    assert arm == {path.name: flags for path, flags in native_library.sources(ROOT, "arm64")}


def test_the_build_and_the_runtime_mean_one_library() -> None:
    """The build cannot import the package that it builds."""
    assert xnnpack_library.REQUIREMENT == library.REQUIREMENT
    assert xnnpack_library.STEMS == library.STEMS
    assert ROOT / xnnpack_library.FOLDER == library.PACKED
    assert f'"{library.REQUIREMENT}"' in (ROOT / "pyproject.toml").read_text()


def test_hints_name_the_distribution() -> None:
    """Another project's code would be installed by ``pip install penstock``."""
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nname = "{DISTRIBUTION}"\n' in project
    sources = [
        *ROOT.glob("*.md"), *ROOT.glob("*.toml"),
        *(ROOT / "docs").glob("*.md"), *(ROOT / "penstock").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"),
    ]  # fmt: skip
    assert len(sources) > 100
    wrong = re.compile(r"pip install [^`\n]*\bpenstock(?!-xnnpack)|\bpenstock\[")
    found = [(path, hit[0]) for path in sources for hit in wrong.finditer(path.read_text())]
    assert not found
    assert install_hint("zoo") == f"pip install '{DISTRIBUTION}[zoo]'"

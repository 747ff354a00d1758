"""Takes XNNPACK's library out of the ``executorch`` wheel.

Needs the standard library and pip alone, for it runs before anything is installed. The wheel is
asked for by name and version, wherever the user's pip is set up to find it, and its SHA-256 is
checked. The libraries in it do not depend on the version of Python, so one wheel for each
platform does.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

REQUIREMENT = "executorch==1.5.1"
PYTHON = "3.11"
FOLDER = Path("penstock/runtime/engines/xnnpack/lib")
STEMS = ("executorch", "executorch_threadpool", "executorch_backend_xnnpack")
LICENCE = "licenses/LICENSE"
#: Says which wheel the files beside it came from; there only when all of them are.
SOURCE = "SOURCE"


class BuildError(RuntimeError):
    """The library cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Wheel:
    """The ``executorch`` wheel of one platform, and the names of the libraries in it."""

    tag: str
    sha256: str
    prefix: str
    suffix: str


WHEELS = {
    ("linux", "x86_64"): Wheel(
        "manylinux_2_28_x86_64",
        "274c28c2fe2b76acb03f9fa381537425c40e0098dcf886baf6d97a1a55ffe300",
        "lib",
        ".so",
    ),
    ("linux", "aarch64"): Wheel(
        "manylinux_2_28_aarch64",
        "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a",
        "lib",
        ".so",
    ),
    ("darwin", "arm64"): Wheel(
        "macosx_14_0_arm64",
        "e747dacb39950a2d234e08f230c1e5540f7b297fd32bc8c8f4296a953bb40dc0",
        "lib",
        ".dylib",
    ),
}


def wheel_for(system: str = sys.platform, machine: str | None = None) -> Wheel:
    """The wheel for a platform (default: this one).

    Raises:
        BuildError: its wheel does not carry the library, or there is none.
    """
    machine = machine or platform.machine()
    wheel = WHEELS.get((system, machine))
    if wheel is None:
        known = ", ".join(f"{s} {m}" for s, m in WHEELS)
        raise BuildError(
            f"{REQUIREMENT} has no XNNPACK library for {system} {machine} (only for {known}):"
            " models can be compiled here and not run; set PENSTOCK_WITHOUT_XNNPACK=1 to install"
            " Penstock so"
        )
    return wheel


def provide(root: Path, wheel: Wheel) -> Path:
    """Make sure that the library and its licence lie in :data:`FOLDER` below ``root``.

    Downloads only if they are not there yet. Returns the folder.

    Raises:
        BuildError: the wheel cannot be downloaded, or is not the one that we know.
    """
    folder = root / FOLDER
    origin = f"{REQUIREMENT} {wheel.tag} sha256:{wheel.sha256}\n"
    names = [f"{wheel.prefix}{stem}{wheel.suffix}" for stem in STEMS]
    source = folder / SOURCE
    if (
        source.is_file()
        and source.read_text() == origin
        and all((folder / name).is_file() for name in names)
    ):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    remove(root)
    with tempfile.TemporaryDirectory() as temporary:
        archive = download(wheel, Path(temporary))
        with zipfile.ZipFile(archive) as content:
            for name in names:
                _write(folder / name, content.read(f"executorch/lib/{name}"))
            licence = next(n for n in content.namelist() if n.endswith(LICENCE))
            _write(folder / "LICENSE.executorch", content.read(licence))
    _write(source, origin.encode())
    return folder


def remove(root: Path) -> None:
    """Take away the libraries of whichever platform."""
    for wheel in WHEELS.values():
        for stem in STEMS:
            (root / FOLDER / f"{wheel.prefix}{stem}{wheel.suffix}").unlink(missing_ok=True)
    (root / FOLDER / SOURCE).unlink(missing_ok=True)


def download(wheel: Wheel, folder: Path) -> Path:
    """Download ``wheel`` into ``folder`` with pip, as the user has it set up, and check it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", wheel.tag, "--python-version", PYTHON, "--implementation", "cp"]
    command += ["--dest", str(folder), "--quiet", "--disable-pip-version-check", REQUIREMENT]
    advice = "check pip's settings, or set PENSTOCK_WITHOUT_XNNPACK=1 to build without XNNPACK"
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    found = sorted(folder.glob("executorch-*.whl"))
    if done.returncode or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"pip ended with {done.returncode}"
        raise BuildError(f"pip cannot download {REQUIREMENT} for {wheel.tag} ({reason}); {advice}")
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise BuildError(
            f"{found[0].name} is not the wheel that Penstock was made for"
            f" (SHA-256 {digest}, expected {wheel.sha256}); {advice}"
        )
    return found[0]


def _environment() -> dict[str, str]:
    """The user's environment without what an outer pip tells its own build about itself, and
    without constraints, which would forbid a version that is asked for by name."""
    dropped = {"PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "PIP_REQUIRE_HASHES", "PIP_USER"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _write(path: Path, data: bytes) -> None:
    """Replace ``path`` in one step: a process that has the old library mapped keeps it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)

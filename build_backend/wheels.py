"""Builds the sdist and, out of it, the wheel of every platform; then has them checked by others'
tools: ``python build_backend/wheels.py FOLDER``, in an environment with the dependency group
``wheels`` of ``pyproject.toml`` (``make wheels``).

The sdist is unpacked elsewhere, so that the libraries of another platform never lie in this tree.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from libraries import problems
from native_library import TARGETS
from target import VARIABLE

ROOT = Path(__file__).resolve().parent.parent
#: Bytes that a wheel may have.
LARGEST = 6_000_000


class WheelError(RuntimeError):
    """A wheel was not built, or is not as it should be."""


def build(folder: Path, platforms: Sequence[str]) -> tuple[Path, list[Path]]:
    """Make the sdist and the wheels of ``platforms`` in ``folder``; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("penstock_xnnpack-*"):
        stale.unlink()
    run("build", "--sdist", "--outdir", str(folder), str(ROOT))
    (sdist,) = folder.glob("penstock_xnnpack-*.tar.gz")
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(sdist) as archive:
            archive.extractall(temporary, filter="data")
        (tree,) = Path(temporary).iterdir()
        wheels = [build_wheel(tree, folder, platform) for platform in platforms]
    return sdist, wheels


def build_wheel(tree: Path, folder: Path, platform: str) -> Path:
    """The wheel for ``platform`` (``linux-aarch64``) of the sources in ``tree``."""
    before = set(folder.glob("*.whl"))
    environment = {VARIABLE: platform, "CC": ""}
    run("build", "--wheel", "--outdir", str(folder), str(tree), environment=environment)
    (made,) = set(folder.glob("*.whl")) - before
    return made


def check(sdist: Path, wheels: list[Path]) -> None:
    """Raise WheelError for the first thing that is wrong."""
    run("twine", "check", "--strict", str(sdist), *map(str, wheels))
    run("check_wheel_contents", *map(str, wheels))
    for wheel in wheels:
        if wheel.stat().st_size > LARGEST:
            raise WheelError(f"{wheel.name} has {wheel.stat().st_size} bytes, more than {LARGEST}")
        if "manylinux" in wheel.name:
            said = run("auditwheel", "show", str(wheel))
            if not _consistent(wheel.stem.rpartition("-")[2], "".join(said.split("\n"))):
                raise WheelError(f"auditwheel finds {wheel.name} to be another: {said}")
        with zipfile.ZipFile(wheel) as archive:
            found = problems({name: archive.read(name) for name in archive.namelist()})
        if found:
            raise WheelError(f"{wheel.name}: {'; '.join(found)}")
        print(f"{wheel.name}  {wheel.stat().st_size / 1e6:.2f} MB")


def _consistent(tag: str, said: str) -> bool:
    """Whether what auditwheel says allows ``tag``: the system that it asks for is no newer."""
    form = r"manylinux_(\d+)_(\d+)_(\w+)"
    claimed, found = re.fullmatch(form, tag), re.search(f'platform tag: "{form}"', said)
    if claimed is None or found is None or claimed[3] != found[3]:
        return False
    return (int(found[1]), int(found[2])) <= (int(claimed[1]), int(claimed[2]))


def run(module: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run a tool of this environment; returns what it says. Raises WheelError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        raise WheelError(f"{module} {arguments[0]}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist")
    every = [f"{system}-{machine}" for system, machine in TARGETS]
    parser.add_argument("--platform", choices=every, help="this one alone")
    arguments = parser.parse_args()
    platforms = [arguments.platform] if arguments.platform else every
    try:
        sdist, wheels = build(arguments.folder, platforms)
        check(sdist, wheels)
    except WheelError as error:
        sys.exit(f"error: {error}")
    print(f"{sdist.name}  {sdist.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

"""``make test-pythons``: the wheel and the tests that need no torch on every Python there is.

Those of this machine (``python3.10`` … on the path, free-threaded ones too), and, on a Debian
machine as root, those of Debian unstable in a folder of their own, ``build/pythons/sid``. Each gets
an environment with the wheel in it. What could not be had is named at the end; a failure ends it
with code 1. ``--only 3.12`` takes one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "pythons"
sys.path.insert(0, str(ROOT / "tests"))

from torch_free import torch_free_tests  # noqa: E402

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
SUITE = "sid"
#: What the tests import beside the wheel's own requirements.
NEEDED = ("pytest>=8", "hypothesis>=6.100", "ml_dtypes")
#: Where the root of Debian unstable sees the project.
INSIDE = "/penstock"


@dataclass(frozen=True)
class Python:
    """An interpreter: ``version`` (``3.13t`` is free-threaded), and the command that runs it."""

    version: str
    command: tuple[str, ...]
    #: The project's folder as the interpreter sees it.
    root: str = str(ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="VERSION")
    parser.add_argument("--wheel", type=Path, help="one that is there already, in this folder")
    arguments = parser.parse_args()
    only = arguments.only
    FOLDER.mkdir(parents=True, exist_ok=True)
    wheel = built_wheel() if arguments.wheel is None else arguments.wheel.resolve()
    wanted = [v for v in (*VERSIONS, *(f"{v}t" for v in VERSIONS[3:])) if only in (None, v)]
    found = {version: python for version in wanted if (python := on_the_path(version))}
    missing = [version for version in wanted if version not in found]
    if any(not version.endswith("t") for version in missing):
        found.update({python.version: python for python in in_debian(missing)})
    results = {}
    for version in (version for version in wanted if version in found):
        results[version] = tested(found[version], wheel)
        print(f"{version:6} {results[version]}", flush=True)
    absent = [version for version in wanted if version not in found]
    if absent:
        print(f"cannot be had here: {', '.join(absent)}")
    sys.exit(any(not result.startswith("passed") for result in results.values()))


def built_wheel() -> Path:
    """One wheel for all of them: it is of no Python's ABI."""
    for old in FOLDER.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(FOLDER), "."]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = FOLDER.glob("*.whl")
    if "-py3-none-" not in wheel.name:
        sys.exit(f"error: {wheel.name} is made for one Python; it must be py3-none")
    return wheel


def on_the_path(version: str) -> Python | None:
    """The interpreter of that name, if it starts (pyenv has names of what it lacks)."""
    name = shutil.which(f"python{version}")
    for command in filter(None, (name, *_of_pyenv(version))):
        python = Python(version, (command,))
        said = _run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        if said.returncode == 0 and said.stdout.strip() == version.rstrip("t"):
            return python
    return None


def _of_pyenv(version: str) -> list[str]:
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    number, free = version.rstrip("t"), version.endswith("t")
    found = sorted(folder.glob(f"{number}.*{'t' if free else ''}/bin/python{number}"))
    return [str(path) for path in found if path.parts[-3].endswith("t") is free]


def in_debian(versions: list[str]) -> list[Python]:
    """Those of Debian unstable, in a root of their own. Nothing where that cannot be made."""
    root = FOLDER / SUITE
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        print("Debian's Pythons need root and debootstrap")
        return []
    # All that the machine lacks, also where one is asked for: the root stays.
    names = [f"python{version}" for version in VERSIONS if on_the_path(version) is None]
    if not (root / ".made").exists():
        shutil.rmtree(root, ignore_errors=True)
        packages = ",".join(["ca-certificates", *names, *(f"{name}-venv" for name in names)])
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root)]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"Debian {SUITE} has not all of: {packages}")
            return []
        (root / ".made").touch()
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    found = []
    for version in versions:
        if (root / "usr/bin" / f"python{version}").exists():
            found.append(Python(version, ("chroot", str(root), f"python{version}"), INSIDE))
    return found


def tested(python: Python, wheel: Path) -> str:
    """``passed`` with pytest's last line, or what went wrong."""
    if python.root == INSIDE:
        return _in_root(python, wheel)
    return _tested(python, wheel)


def _in_root(python: Python, wheel: Path) -> str:
    """With the project, read-only pip settings and certificates of this machine inside."""
    root = FOLDER / SUITE
    (root / INSIDE[1:]).mkdir(exist_ok=True)
    mounts = [(ROOT, INSIDE, "--bind"), ("/proc", "/proc", "--bind"), ("/sys", "/sys", "--bind")]
    for name in ("/etc/pip.conf", os.environ.get("PIP_CERT", "")):
        if name and Path(name).is_file():
            (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, root / name[1:])
    done: list[str] = []
    try:
        for source, target, how in mounts:
            subprocess.run(["mount", how, str(source), f"{root}{target}"], check=True)
            done.append(f"{root}{target}")
        return _tested(python, wheel)
    finally:
        for target in reversed(done):
            subprocess.run(["umount", target], check=False)


def _tested(python: Python, wheel: Path) -> str:
    # Not the interpreter's own folder of packages, and in a place that it sees as we do.
    folder = FOLDER / f"env-{python.version}"
    shutil.rmtree(folder, ignore_errors=True)
    inside = f"{python.root}/{folder.relative_to(ROOT)}"
    steps = [
        (*python.command, "-m", "venv", inside),
        (*_of(python, inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         f"{python.root}/{wheel.relative_to(ROOT)}", *NEEDED),
    ]  # fmt: skip
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return f"cannot be set up: {lines[-1] if lines else done.returncode}"
    tests = [f"{python.root}/{path.relative_to(ROOT)}" for path in torch_free_tests()]
    command = (*_of(python, inside), "-P" if python.version != "3.10" else "-E", "-m", "pytest",
               "-c", f"{python.root}/pyproject.toml", "-p", "no:cacheprovider", *tests)  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=FOLDER
    )
    last = done.stdout.strip().splitlines()[-1:] or ["nothing was printed"]
    if done.returncode:
        (FOLDER / f"{python.version}.log").write_text(done.stdout + done.stderr)
        return f"failed: {last[0]} (build/pythons/{python.version}.log)"
    return f"passed: {last[0]}"


def _of(python: Python, inside: str) -> tuple[str, ...]:
    """The command of an environment's interpreter."""
    return (*python.command[:-1], f"{inside}/bin/python")


def _run(python: Python, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*python.command, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()

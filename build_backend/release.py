"""The last words of ``make release``: whether this tree may be released, and what was made of it.

``python build_backend/release.py --check`` refuses a tree that is not as it was committed, and a
changelog without this version. Without ``--check`` it looks at ``dist``, which must hold exactly
the files of this version, and writes their SHA-256 beside them. Nothing is published.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"


def version(root: Path = ROOT) -> str:
    """The version, from the one place where it is written."""
    found = re.search(
        r'^__version__ = "([^"]+)"', (root / "penstock/__init__.py").read_text(), re.M
    )
    if found is None:
        raise SystemExit("error: penstock/__init__.py has no __version__")
    return found[1]


def problems(root: Path = ROOT) -> Iterator[str]:
    """Why a tree cannot be released as it is."""
    command = ["git", "-C", str(root), "status", "--porcelain"]
    changed = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        yield f"the tree has changes: {names}{more}; commit them"
    number = re.escape(version(root))
    heading = re.compile(rf"^## \[?{number}\]? - \d{{4}}-\d{{2}}-\d{{2}}$", re.MULTILINE)
    if not heading.search((root / "CHANGELOG.md").read_text()):
        yield f"CHANGELOG.md has no section '## [{version(root)}] - YYYY-MM-DD'; date its changes"


def made(folder: Path, number: str) -> list[Path]:
    """The files of a release in ``folder``. Refuses a folder that lacks one, or has others'."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    kinds = {
        "sdist": [p for p in files if p.name == f"penstock_xnnpack-{number}.tar.gz"],
        "wheel": [p for p in files if p.name.startswith(f"penstock_xnnpack-{number}-py3-none-")],
        "SBOM": [p for p in files if p.name.endswith(".json")],
    }
    missing = [kind for kind, found in kinds.items() if not found]
    if missing:
        raise SystemExit(f"error: {folder} has no {' and no '.join(missing)} of {number}")
    foreign = [p.name for p in files if not any(p in found for found in kinds.values())]
    if foreign:
        raise SystemExit(f"error: {folder} also has {', '.join(foreign)}; remove them")
    return files


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        wrong = list(problems())
        if wrong:
            sys.exit("\n".join(f"error: {one}" for one in wrong))
        return
    folder = ROOT / "dist"
    files = made(folder, version())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (folder / SUMS).write_text("".join(f"{line}\n" for line in sums))
    print("\n".join([f"{version()} is made and checked, and not published:", *sums]))


if __name__ == "__main__":
    main()

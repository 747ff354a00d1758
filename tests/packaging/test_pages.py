"""The bundling of the pages' scripts, where npm is and where it is not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

import pages  # noqa: E402


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources, with nothing built."""
    ignored = shutil.ignore_patterns("node_modules")
    shutil.copytree(ROOT / pages.SOURCES, tmp_path / pages.SOURCES, ignore=ignored)
    return tmp_path


def without_npm(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(copy))
    monkeypatch.setattr(pages.importlib.util, "find_spec", lambda name: None)


def test_without_npm(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_npm(copy, monkeypatch)
    assert pages.missing_requirements(copy) == [pages.REQUIREMENT]
    with pytest.raises(pages.NoPagesError, match="no Node.js with npm") as caught:
        pages.provide(copy)
    assert pages.REQUIREMENT in str(caught.value)


def test_a_registry_that_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What npm says is said, in one line, and nothing half made is left."""
    npm = copy / "npm.js"
    npm.write_text(
        "console.error('npm error code ENOTFOUND\\nnpm error no registry'); process.exit(1)"
    )
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js here")
    monkeypatch.setattr(pages, "_npm", lambda: (node, str(npm)))
    with pytest.raises(pages.NoPagesError, match="npm.js ci: .*ENOTFOUND .*no registry") as caught:
        pages.provide(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / pages.FOLDER / pages.SOURCE).exists()


def test_what_is_current_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pages.provide(ROOT)
    kinds = {path.stem for path in (ROOT / pages.SOURCES / "src").glob("*.js")}
    assert kinds and all((folder / f"{kind}.js").is_file() for kind in kinds)
    assert "Permission" in (folder / "LICENSES.txt").read_text()
    without_npm(ROOT, monkeypatch)
    assert pages.missing_requirements(ROOT) == []
    assert pages.provide(ROOT) == folder


def test_a_change_is_seen(copy: Path) -> None:
    """Each file that the bundles depend on counts."""
    first = pages._digest(copy)
    seen = {first}
    for name in ("build.mjs", "package-lock.json", "src/page.css", "src/components/dom.js"):
        path = copy / pages.SOURCES / name
        path.write_text(path.read_text() + "\n")
        seen.add(pages._digest(copy))
    assert len(seen) == 5

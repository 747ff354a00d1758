"""What ``make release`` refuses, and that the version is written once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import penstock

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

import release  # noqa: E402


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A committed tree that may be released."""
    (tmp_path / "penstock").mkdir()
    (tmp_path / "penstock/__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2027-01-31\n")
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -qm a"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    return tmp_path


def test_the_version_is_written_once() -> None:
    assert release.version() == penstock.__version__
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and f'"{penstock.__version__}"' not in project


def test_a_tree_that_may_be_released(tree: Path) -> None:
    assert list(release.problems(tree)) == []


def test_changes_are_refused(tree: Path) -> None:
    for number in range(4):
        (tree / f"new{number}").touch()
    (said,) = release.problems(tree)
    assert said.startswith("the tree has changes: new0, new1, new2 and 1 more")
    (tree / ".gitignore").write_text("new*\n")
    assert len(list(release.problems(tree))) == 1


def test_a_changelog_without_the_version_is_refused(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.30] - 2027-01-31\n"
    )
    assert any("## [1.2.3] - YYYY-MM-DD" in one for one in release.problems(tree))


def test_what_a_release_is_made_of(tmp_path: Path) -> None:
    names = [
        "penstock_xnnpack-1.2.3.tar.gz",
        "penstock_xnnpack-1.2.3-py3-none-any.whl",
        "a.cdx.json",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in release.made(tmp_path, "1.2.3")] == sorted(names)
    with pytest.raises(SystemExit, match=r"has no sdist and no wheel of 1\.2\.4"):
        release.made(tmp_path, "1.2.4")
    (tmp_path / "penstock_xnnpack-1.2.2.tar.gz").touch()
    with pytest.raises(SystemExit, match=r"also has penstock_xnnpack-1\.2\.2\.tar\.gz"):
        release.made(tmp_path, "1.2.3")


def test_the_changelog_keeps_the_convention() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    sections = [line[4:] for line in lines if line.startswith("### ")]
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]" or versions[0].startswith(
        f"## [{penstock.__version__}]"
    )

"""``benchmarks.zoo`` writes the page whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import zoo


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "zoo.md"
    path.write_text("| model | precision | ms |\n| --- | --- | --- |\n| add | fp32 | 1 |\n")
    monkeypatch.setattr(zoo, "PAGE", path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    files = lambda names: {(n, "fp32"): {} for n in names}  # noqa: E731
    monkeypatch.setattr(zoo, "compiled", files)
    monkeypatch.setattr(zoo, "measure", lambda *_: {})
    monkeypatch.setattr(zoo, "describe", dict)
    monkeypatch.setattr(zoo, "line", lambda key, rows: key)
    row = lambda key: f"| {key.replace(' ', ' | ')} | 2 |\n"  # noqa: E731
    monkeypatch.setattr(zoo, "page", lambda results: "".join(map(row, results["rows"])))
    return path


def test_rows_of_other_machines_stay(page: Path, capsys: Any) -> None:
    before = page.read_text()
    zoo.main(["mv2"])
    assert page.read_text() == before
    assert "zoo.md is left as it is" in capsys.readouterr().out


def test_where_all_rows_are_there(page: Path) -> None:
    zoo.main(["mv2"])
    zoo.main(["add"])
    assert page.read_text() == "| add | fp32 | 2 |\n| mv2 | fp32 | 2 |\n"

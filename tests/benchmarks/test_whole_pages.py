"""A page is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import run, unseen, zoo
from benchmarks.page import STARTS
from benchmarks.whole_pages import shown, write_page

KNOWN = ["mv2 fp32", "vit", "Start"]
WHOLE = "# Page\n\n| a | b |\n| --- | --- |\n| mv2 | fp32 | 1 |\n| vit | 2, 2 |\n\n## Start\n"


@pytest.mark.parametrize("lost", ["| mv2 | fp32 | 1 |\n", "| vit | 2, 2 |\n", "## Start\n"])
def test_what_was_measured_elsewhere_stays(tmp_path: Path, lost: str, capsys: Any) -> None:
    path = tmp_path / "page.md"
    path.write_text(WHOLE)
    write_page(path, WHOLE.replace(lost, ""), KNOWN)
    assert path.read_text() == WHOLE
    assert "is left as it is" in capsys.readouterr().out


def test_what_is_no_more_goes(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "page.md"
    path.write_text(WHOLE + "| old | fp32 | 1 |\n")
    write_page(path, WHOLE, KNOWN)
    assert path.read_text() == WHOLE
    write_page(tmp_path / "new.md", "", KNOWN)
    assert capsys.readouterr().out.count("written: ") == 2


def test_the_pages_that_there_are() -> None:
    """Their rows are found by the names that the commands give."""
    assert {"mv2 fp32", "mv2 q8", STARTS} <= shown(run.PAGE.read_text(encoding="utf-8"))
    assert {"mv2 fp32", "mv2 q8"} <= shown(zoo.PAGE.read_text(encoding="utf-8"))
    rows = shown(unseen.PAGE.read_text(encoding="utf-8"))
    assert any(name in rows for name in unseen.MODELS)

"""A page is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import run, unseen, zoo
from benchmarks.page import STARTS, page
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


def test_each_number_of_launches_is_said() -> None:
    files = dict.fromkeys(("ours", "stock"), {"error": "not compiled"})
    rows = {
        "mv2 fp32": {"launches": 3},
        "vit q8": {"launches": 1},
        "vit fp32": {"launches": 1},
        "mv3 q8": {"launches": 2},
        "dl3 q8": {},  # before it was noted
    }
    text = page(
        {
            "machine": {"date": "2026-11-28", "features": "avx2"},
            "models": {key: {"files": files, **row} for key, row in rows.items()},
        }
    )
    said = [line for line in text.splitlines() if line.startswith("- launched")]
    assert said == ["- launched 1 time: vit q8, vit fp32", "- launched 2 times: mv3 q8"]


def test_rows_come_in_the_order_of_the_page() -> None:
    rows = ["mv2 fp32", "mv2 q8", "vit fp32"]
    measured = ["vit fp32", "edsr q8", "mv2 q8", "add fp32", "mv2 fp32"]
    assert sorted(measured, key=run.place_in(rows)) == [*rows, "add fp32", "edsr q8"]

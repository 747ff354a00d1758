"""Pages as files: what stands in them, and what cannot be written."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import BackendUnavailableError, InputError
from penstock.pages import document, page, write_page

ROOT = Path(__file__).parents[2]


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Row:
    name: str
    value: float


def data_of(text: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def test_data_arrives_as_it_is() -> None:
    rows = (Row("a", float("inf")), Row("b", float("nan")), Row("c", -float("inf")))
    numbers = {"one": np.float32(0.5), "many": np.arange(3), 3: Colour.RED, "path": Path("a/b")}
    found = data_of(page("inspect", "t", {"rows": rows, "numbers": numbers, "none": None}))
    assert [row["value"] for row in found["rows"]] == ["Infinity", "NaN", "-Infinity"]
    assert found["numbers"] == {"one": 0.5, "many": [0, 1, 2], "3": "red", "path": "a/b"}
    assert found["none"] is None


HOSTILE = (
    "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> {title} \ud800 \u2028"
)


def test_nothing_out_of_a_file_is_html() -> None:
    text = page("inspect", HOSTILE, {HOSTILE: [HOSTILE]})
    assert data_of(text) == {HOSTILE: [HOSTILE]}
    body = text.replace(page("inspect", "", {}), "")
    assert "<img" not in body and "<script>alert" not in body
    text.encode()


def test_names_turn_no_text_about() -> None:
    data = data_of(page("inspect", "a\u202eb", {"x\u2066": ["\x1b[31m", "fine \u200d\n"]}))
    assert data == {"x\\u2066": ["\\u001b[31m", "fine \u200d\n"]}
    assert "<h1>a\\u202eb</h1>" in page("inspect", "a\u202eb", {})


def test_only_the_bundle_runs_and_nothing_is_loaded() -> None:
    text = page("inspect", "t", {})
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in text
    assert not re.search(r"<(link|img|iframe)\b|\bsrc=|@import|url\(\s*['\"]?http", text)
    # The packages in the bundle are named with their licences.
    assert "@dagrejs/dagre" in text and "d3-zoom" in text and "Permission" in text


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write the page .*: No such file"):
        write_page(tmp_path / "no" / "page.html", "inspect", "t", {})
    with pytest.raises(InputError, match="cannot write the page .*: Is a directory"):
        write_page(tmp_path, "inspect", "t", {})
    target = tmp_path / "page.html"
    target.write_text("old")
    assert write_page(target, "inspect", "t", {}) == target
    assert target.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [target]


def test_an_installation_without_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "ASSETS", tmp_path / "assets")
    with pytest.raises(
        BackendUnavailableError, match=r"inspect.js is missing.*make pages"
    ) as caught:
        write_page(tmp_path / "page.html", "inspect", "t", {})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_sources_make_no_html_and_name_no_host() -> None:
    sources = list((ROOT / "web" / "src").rglob("*.js"))
    assert len(sources) > 10
    for path in sources:
        text = path.read_text()
        assert "innerHTML" not in text and "insertAdjacent" not in text, path
        assert not re.sub(r"http://www\.w3\.org/2000/svg", "", text).count("://"), path
    assert "://" not in (ROOT / "web" / "package-lock.json").read_text()


def test_versions_are_exact() -> None:
    package = json.loads((ROOT / "web" / "package.json").read_text())
    versions = {**package["dependencies"], **package["devDependencies"]}
    assert versions and all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in versions.values())
    # What the sources import is named there, and nothing else is.
    imported = {
        re.match(r"(@[^/]+/)?[^/]+", name)[0]  # type: ignore[index]
        for path in (ROOT / "web" / "src").rglob("*.js")
        for name in re.findall(
            r'^(?:import|\} from).*?"([^."\n][^"\n]*)"', path.read_text(), re.MULTILINE
        )
    }
    assert imported == set(package["dependencies"])

"""The pages of ``penstock bench`` and ``penstock compare`` in a real browser."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from page_checks import check_page

from penstock.pages import write_page
from penstock.tools.bench.contest import Spread
from penstock.tools.bench.report import BenchReport, Row
from penstock.tools.compare.report import CompareReport, Layer, Output

pytestmark = pytest.mark.browser


def row(runtime: str, file: str, threads: int, best: float, **more: Any) -> Row:
    fields: dict[str, Any] = {
        "precision": "static int8", "best_ms": best, "times_ms": Spread(best, best, 2 * best),
        "ratio": Spread(best / 2, best / 3, best), "turns": 40, "load_ms": 130.0, "growth_mb": 9.0,
        "peak_mb": 400.0, "sqnr_db": 17.2,
    } | more  # fmt: skip
    return Row(runtime, runtime.title(), file, threads=threads, **fields)


FAILED = {"best_ms": None, "times_ms": None, "ratio": None, "error": "no <b>kernel</b> for x"}


def bench_page(folder: Path) -> Path:
    rows = [
        row(runtime, "a_model_with_a_long_name_xnnpack_q8.pte", threads, 2.0 + threads)
        for threads in (1, 2)
        for runtime in ("penstock", "executorch", "onnxruntime")
    ]
    rows.append(row("openvino", "a.onnx", 1, 0.0, **FAILED))
    machine = {"date": "2026-11-26", "processor": "a processor", "versions": "torch 2"}
    report = BenchReport(machine, 5.0, 2, 4, tuple(rows), ("the machine is busy",))
    return write_page(folder / "b.html", "bench", "Bench", report.as_dict() | {"notices": ["n"]})


def compare_page(folder: Path, layers: int) -> Path:
    found = [
        Layer(
            f"encoder.layers.{i}.self_attention.projection", "aten.linear.default", "model.py:7",
            ("fully_connected", "fully_connected"), ("fp32", "qint8"), (1, 197, 768),
            math.inf if i == 0 else 40.0 - 0.1 * i, None if i == 0 else 0.5 + i % 7, 0.01, 3.0,
        )
        for i in range(layers)
    ]  # fmt: skip
    left_out = Layer(
        "encoder.layers.3.self_attention.key", "aten.linear.default", "",
        ("fully_connected", "add"), ("fp32", "fp32"), (1, 197, 768), -2.9, None, 3.0, 3.0,
        "what follows from it agrees, 118 dB",
    )  # fmt: skip
    first = next((i for i, layer in enumerate(found) if layer.sqnr_db < 30), None)
    report = CompareReport(
        "a.pte", "b.pte", 4, "4 samples", 30.0, (Output((1, 1000), 18.0, 0.1, 3.0),), tuple(found),
        first, (("m aten.view.default",), ()), (left_out,) if layers else (),
    )  # fmt: skip
    return write_page(folder / "c.html", "compare", "a and b", report.as_dict())


@pytest.mark.parametrize("shape", [{}, {"width": 360, "dark": True}])
def test_bench(tmp_path: Path, opened: Any, shape: dict[str, Any]) -> None:
    one = opened(bench_page(tmp_path), **shape)
    one.page.wait_for_selector("svg")
    check_page(one.page)
    text = one.page.locator("main").inner_text()
    for part in ("1 thread", "2 threads", "17.2 dB", "130 ms", "9 MB", "the machine is busy"):
        assert part in text, part
    assert "fails: no <b>kernel</b> for x" in text
    # Cut or not, a name on an axis says the precision.
    names = one.page.locator('figure svg g[data-part="y-axis tick label"] text').all_text_contents()
    assert names and all(re.search(r"fp32|int8|4-bit", name) for name in names), names
    one.picture(f"bench-{shape.get('width', 'wide')}")


@pytest.mark.parametrize("shape", [{}, {"width": 360, "dark": True}])
def test_compare(tmp_path: Path, opened: Any, shape: dict[str, Any]) -> None:
    one = opened(compare_page(tmp_path, 150), **shape)
    page = one.page
    page.wait_for_selector("svg")
    check_page(page)
    text = page.locator("main").inner_text()
    for part in ("they do not agree", "18 dB", "equal", "layers.101", "150", "0.01 of 3"):
        assert part in text, part
    for part in ("self_attention.key", "-2.9 dB", "fully_connected | add", "agrees, 118 dB"):
        assert part in text.replace("\N{MINUS SIGN}", "-"), part
    page.get_by_role("button", name="encoder.layers.3.").first.click()
    details = page.locator("aside.details")
    for part in ("model.py:7", "fully_connected, qint8", "1 × 197 × 768", "39.7 dB"):
        assert part in details.inner_text(), part
    one.picture(f"compare-{shape.get('width', 'wide')}", full=False)
    page.keyboard.press("Escape")
    assert not details.is_visible()


def test_nothing_matched(tmp_path: Path, opened: Any) -> None:
    page = opened(compare_page(tmp_path, 0)).page
    page.wait_for_selector("table")
    check_page(page)
    assert "no layer" in page.locator("main").inner_text()

"""The page of ``penstock profile --html`` in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_checks import check_page

import penstock
from penstock.pages import write_page
from penstock.runtime import load
from penstock.tools.profiling.machine import Peaks
from penstock.tools.profiling.measure import measure
from penstock.tools.profiling.report import report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small network, partly outside of delegates."""
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU())
            self.head = torch.nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sort(self.head(self.body(x).mean((2, 3))))[0]

    lowered = penstock.lower(Net().eval(), (torch.randn(1, 3, 96, 96),))
    program = load(lowered.to_bytes(), threads=1, profile=True)
    calls = measure(program, None, [np.ones((1, 3, 96, 96), np.float32)], runs=5)
    peaks = Peaks("some processor", 1, 1e11, 4e11, 2e10, 1e11, 1 << 20)
    found = report(program, "<b>net</b>.pte", "auto", 1, calls, peaks)
    path = tmp_path_factory.mktemp("page") / "profile.html"
    return write_page(path, "profile", "Profile of net.pte", found.as_dict())


@pytest.mark.parametrize("dark, width", [(False, 1280), (True, 390)])
def test_profile(opened: Any, profiled: Path, dark: bool, width: int) -> None:
    one = opened(profiled, width=width, dark=dark)
    page = one.page
    page.get_by_text("Roofline").first.wait_for()
    assert "<b>net</b>.pte" in page.locator(".facts").inner_text()
    for heading in ("Roofline", "By module", "By operator", "By node"):
        assert page.get_by_role("heading", name=heading, exact=True).is_visible()
    rows = page.get_by_role("region", name="Nodes and instructions")
    rows.get_by_role("button", name="CONV_2D").first.click()
    details = page.get_by_role("complementary", name="Details")
    text = details.inner_text()
    assert "body.0" in text and "aten.conv2d.default" in text
    assert "FLOP/s" in text and "%" in text
    one.picture(f"profile-{'dark' if dark else 'light'}")
    page.keyboard.press("Escape")
    assert not details.is_visible()
    check_page(page)


def test_many_modules(opened: Any, tmp_path: Path) -> None:
    """Of a long list of modules the page shows some, the rest at the push of a button, by keyboard
    too."""
    row = {
        "instruction": 0, "label": "CONV_2D", "calls": 1.0, "seconds": 1e-5, "share": 0.01,
        "engine": "native", "operators": ["conv"], "with_nodes": [], "work": None, "bytes": None,
        "least_seconds": None, "operator": "aten.conv2d.default",
    }  # fmt: skip
    origin = {"source": "m.py:1", "operator": "aten.conv2d.default"}
    rows = [{**row, "node": i, "origin": {"module": f"c.{i}", **origin}} for i in range(100)]
    data = {
        "path": "m.pte", "method": "forward", "engine": "auto", "threads": 1, "calls": 5,
        "seconds": 1e-3, "quartiles": [1e-3] * 3, "rows": rows, "unseen": [],
        "peaks": {"processor": "p", "busy": False, "memory": 1e10, "cache": 1e11, "fp32": 1e11,
                  "int8": None},
    }  # fmt: skip
    one = opened(write_page(tmp_path / "p.html", "profile", "Profile", data))
    page = one.page
    tree = page.get_by_label("Modules with their times")
    tree.wait_for()
    # the model, c, and what is shown of c's hundred
    assert tree.locator("summary").count() == 2 + 30
    check_page(page)
    page.get_by_role("button", name="Show 70 more").focus()
    page.keyboard.press("Enter")
    assert tree.locator("summary").count() == 2 + 100
    assert page.get_by_role("button", name="Show 70 more").count() == 0
    assert page.evaluate("document.activeElement.textContent").startswith("30 ")

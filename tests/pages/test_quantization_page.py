"""The page of ``penstock quantize-report --html`` in a real browser."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from page_checks import check_page

import penstock
from penstock.pages import write_page

pytestmark = pytest.mark.browser


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 32), torch.nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)).softmax(-1))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    data = [(torch.randn(64, 16),) for _ in range(6)]
    lowered = penstock.lower(
        Net().eval(), data[0], quantize="static", calibration=data[:3], held_out=data[3:]
    )
    assert lowered.quantization is not None
    cost = lowered.quantization.cost()
    found = {"model": "net", **{f.name: getattr(cost, f.name) for f in fields(cost)}}
    return write_page(tmp_path_factory.mktemp("page") / "q.html", "quantization", "net", found)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_a_layers_name_opens_its_histograms(
    report: Path, opened: Any, width: int, dark: bool
) -> None:
    one = opened(report, width=width, dark=dark)
    page = one.page
    page.wait_for_selector("figure svg")
    check_page(page)
    one.picture(f"quantization-{width}")
    # A short table leaves no hole before what follows.
    table = page.get_by_role("region", name="Quantized layers").bounding_box()
    behind = page.get_by_role("heading", name="In float").bounding_box()
    assert behind["y"] - table["y"] - table["height"] < 80
    assert "softmax" in page.locator("section", has_text="In float").inner_text()
    page.locator("table button.link", has_text="second").click()
    details = page.locator("aside.details")
    details.locator("svg").first.wait_for()
    text = details.inner_text()
    for part in ("linear", "dB on calibration data", "dB on held-out data", "Range", "Weights"):
        assert part in text, part
    assert details.locator("svg").count() == 3
    page.keyboard.press("Escape")
    assert details.is_hidden()

"""The page of ``penstock inspect --html`` in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from page_checks import check_page

import penstock
from penstock.formats.program import (
    Allocation,
    Delegate,
    DelegateCall,
    KernelCall,
    Method,
    Operator,
    Program,
    ScalarType,
    Tensor,
)
from penstock.pages import write_page
from penstock.runtime import load
from penstock.tools.describe import describe
from penstock.tools.describe.page import page_data
from penstock.tools.describe.timings import read_timings

pytestmark = pytest.mark.browser

STOCK = Path(__file__).parents[1] / "formats" / "stock"


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), Block(), Block(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small int8 network, with times."""
    folder = tmp_path_factory.mktemp("page")
    lowered = penstock.lower(network().eval(), (torch.randn(1, 3, 8, 8),), quantize="static")
    program = describe(load(lowered.to_bytes()).program, "net.pte", len(lowered.to_bytes()))
    (delegate,) = program.methods[0].delegates
    rows = [
        {"instruction": 0, "node": node.position, "seconds": 1e-5 * (node.position + 1),
         "share": 0.5 / (node.position + 1), "engine": "xnnpack", "operators": ["an operator"]}
        for node in delegate.nodes
    ]  # fmt: skip
    profile = {"method": "forward", "seconds": 1e-3, "threads": 2, "engine": "auto", "rows": rows}
    (folder / "profile.json").write_text(json.dumps(profile))
    timings = read_timings(folder / "profile.json", program)
    return write_page(folder / "net.html", "inspect", "net.pte", page_data(program, timings))


def drawn(one: Any) -> Any:
    one.page.wait_for_selector(".canvas svg .node")
    return one.page


def test_a_click_shows_the_details(quantized: Path, opened: Any) -> None:
    one = opened(quantized)
    page = drawn(one)
    check_page(page)
    one.picture("inspect")
    page.locator(".node", has_text="conv_2d").first.click()
    details = page.locator("aside.details")
    text = details.inner_text()
    for part in (
        "conv_2d", "Time", "µs a call", "%", "Engine", "XNNPACK", "Module", "Source", "Operator",
        "aten.conv2d.default", "an operator", "qint8 1 × ", "scale 0.0", "zero point",
        "scales per channel", "kernel", "3, 3", "node ",
    ):  # fmt: skip
        assert part in text, part
    assert page.evaluate("document.activeElement.textContent") == "conv_2d"
    one.picture("inspect-details", full=False)
    page.keyboard.press("Escape")
    assert not details.is_visible()
    check_page(page)


def found(page: Any, words: str) -> int:
    page.fill("input[type=search]", words)
    count, _, rest = page.locator("output").first.inner_text().partition(" of ")
    assert rest.endswith("nodes")
    assert page.locator(".node.found").count() == int(count)
    return int(count)


def test_search(quantized: Path, opened: Any) -> None:
    page = drawn(opened(quantized))
    everything = page.locator(".node").count()
    assert found(page, "conv_2d") == 5
    assert found(page, "1.second") == found(page, "2.second") > 0
    assert found(page, "aten.linear") == 1
    assert found(page, "1x6x6x8 conv_2d") == 5
    assert found(page, "no such thing") == 0
    assert page.get_by_label("Next match").is_disabled()
    found(page, "conv_2d")
    page.keyboard.press("Enter")
    assert page.locator("aside.details h3").inner_text() == "conv_2d"
    first = page.locator(".node.picked").get_attribute("data-id")
    page.keyboard.press("Enter")
    assert page.locator("output").first.inner_text() == "2 of 5"
    assert page.locator(".node.picked").get_attribute("data-id") != first
    page.fill("input[type=search]", "")
    assert page.locator(".canvas.searching").count() == 0
    assert page.locator(".node").count() == everything


def test_keyboard(quantized: Path, opened: Any) -> None:
    """Along the edges by arrows, from the one stop of the Tab key; details by Enter."""
    page = drawn(opened(quantized))
    assert page.locator('.node[tabindex="0"]').count() == 1
    page.get_by_label("Colour by").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.id") == "in0"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    here = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    title = page.locator("aside.details h3").inner_text()
    assert here.startswith(title)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == here
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.dataset.id") == "in0"


def test_zoom_and_colours(quantized: Path, opened: Any) -> None:
    page = drawn(opened(quantized))
    view = page.locator(".canvas svg > g").first
    places = [view.get_attribute("transform")]
    for press in ("Fit", "Zoom in", "Start", "Zoom out"):
        page.get_by_role("button", name=press).click()
        page.wait_for_timeout(50)
        places.append(view.get_attribute("transform"))
    assert len(set(places)) == 4 and places[0] == places[3]
    page.mouse.move(400, 500)
    page.locator(".canvas").hover()
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(50)
    assert view.get_attribute("transform") not in places
    legends = set()
    for name in ("time", "kind", "engine"):
        page.get_by_label("Colour by").select_option(label=name)
        legends.add(page.locator(".legend").first.inner_text())
    assert len(legends) == 3


def test_tables_sort(quantized: Path, opened: Any) -> None:
    page = drawn(opened(quantized))
    figure = page.locator("figure", has_text="Constants by size")
    figure.locator("summary").click()
    sizes = figure.locator("tbody tr td:nth-child(2)")
    largest = sizes.first.inner_text()
    heading = figure.locator("th", has_text="Size")
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert sizes.last.inner_text() == largest != sizes.first.inner_text()
    # A constant leads to the node that reads it.
    figure.locator("tbody button").last.click()
    assert page.locator("aside.details h3").inner_text() == "fully_connected"


def test_on_a_phone_in_the_dark(quantized: Path, opened: Any) -> None:
    one = opened(quantized, width=360, height=780, dark=True)
    page = drawn(one)
    check_page(page)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, ground[4:-1].split(","))) < 150
    one.picture("inspect-phone")
    page.fill("input[type=search]", "fully_connected")
    page.keyboard.press("Enter")
    # What was picked is not under the panel, once the next frame has moved it to the middle.
    page.wait_for_function(
        """() => {
            const box = (name) => document.querySelector(name).getBoundingClientRect();
            return box(".node.picked").bottom <= box("aside.details").top;
        }""",
        timeout=5000,
    )
    page.locator(".workspace").scroll_into_view_if_needed()
    one.picture("inspect-phone-details", full=False)
    check_page(page)


def floats(offset: int | None) -> Tensor:
    place = None if offset is None else Allocation(1, offset)
    return Tensor(ScalarType.FLOAT, (1, 64, 56, 56), allocation=place)


def written(path: Path, program: Program, title: str) -> Path:
    return write_page(path, "inspect", title, page_data(describe(program, title)))


def test_a_graph_of_1500_nodes(tmp_path: Path, opened: Any) -> None:
    """Blocks of three in a row and one beside them, and an input that all of them read."""
    values: list[Any] = [floats(0), floats(None)]
    calls: list[Any] = []

    def call(*inputs: int) -> int:
        values.append(floats(16 * len(values)))
        calls.append(KernelCall(0, (*inputs, len(values) - 1, len(values) - 1)))
        return len(values) - 1

    here = 0
    while len(calls) < 1500:
        first = call(here, 1)
        here = call(call(call(first, 1), first), call(here, here))
    method = Method(
        "forward", values, [0, 1], [here], calls, [Operator("aten::add", "out")],
        memory_sizes=[0, 16 * len(values) + 4 * 64 * 56 * 56],
    )  # fmt: skip
    path = written(tmp_path / "large.html", Program([method]), "large.pte")
    assert path.stat().st_size < 2_000_000
    one = opened(path)
    page = drawn(one)
    assert page.locator(".node").count() == len(calls) + 3
    # Some of it is drawn at once, all of it in seconds on a machine that does nothing else.
    assert page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive") < 20_000
    check_page(page)
    # The input that all read does not cover everything with lines.
    assert page.locator(".note").count() > 100
    page.locator(".note").first.dispatch_event("click")  # it may be far outside of the view
    assert page.locator("aside.details h3").inner_text() == "input 1"
    page.get_by_role("button", name="Fit").click()
    one.picture("inspect-large", full=False)


@pytest.mark.parametrize(
    "name", ["choice", "image_q8", "mutable", "nested", "two_methods", "external/partly"]
)
def test_stock_files(name: str, tmp_path: Path, opened: Any) -> None:
    data = [path] if (path := STOCK / f"{name}.ptd").exists() else []
    path = written(tmp_path / "x.html", load(STOCK / f"{name}.pte", data=data).program, name)
    page = drawn(one := opened(path))
    check_page(page)
    one.picture(f"inspect-{path.stem}-{Path(name).name}")


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"


def test_nothing_in_a_file_is_run(tmp_path: Path, opened: Any) -> None:
    named: Mapping[str, bytes] = {HOSTILE: b"12", "__proto__": b"34"}
    values: list[Any] = [floats(0), floats(64)]
    values[1].name = HOSTILE
    method = Method(
        HOSTILE, values, [0], [1], [DelegateCall(0, (0, 1))],
        delegates=[Delegate(HOSTILE, b"")], memory_sizes=[0, 1 << 20],
    )  # fmt: skip
    path = written(tmp_path / "x.html", Program([method], dict(named)), HOSTILE)
    page = drawn(opened(path))
    page.locator(".node", has_text="script").click()
    assert page.locator("aside.details h3").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.get_by_role("cell", name="__proto__").count() == 1
    check_page(page)


def test_smaller_constants_open(tmp_path: Path, opened: Any) -> None:
    """The treemap says how much the smaller ones are together, and goes down to the last."""
    layers = [torch.nn.Linear(n, n + 1) for n in range(8, 142)]
    lowered = penstock.lower(torch.nn.Sequential(*layers), (torch.randn(1, 8),))
    program = describe(load(lowered.to_bytes()).program, "many.pte", len(lowered.to_bytes()))
    one = opened(write_page(tmp_path / "many.html", "inspect", "many.pte", page_data(program)))
    page = drawn(one)
    areas = page.locator(".treemap button")
    page.locator(".treemap").scroll_into_view_if_needed()
    assert areas.count() == 121
    more = page.locator(".tools button", has_text="smaller one")
    assert re.fullmatch(r"Show 148 smaller ones, [\d.]+ kB in all", more.inner_text())
    one.picture("inspect-constants")
    areas.last.click()  # the area of the smaller ones opens as the button does
    assert areas.count() == 121
    more.click()
    assert areas.count() == 28 and more.count() == 0
    page.locator(".tools button", has_text="Larger ones").click()
    page.locator(".tools button", has_text="Larger ones").click()
    assert more.inner_text().startswith("Show 148 ")
    check_page(page)

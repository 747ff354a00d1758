"""A real browser for the tests of pages: the system's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: Where screenshots are left, to be looked at.
PICTURES = Path(__file__).parents[2] / "build" / "pages"
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no chromium: install it, or let make test-pages do it")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as playwright:
        # In a container, as root, chromium's own sandbox cannot be set up.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page in the browser, with what it complained about and what it asked the network for."""

    def __init__(self, browser: Any, path: Path, width: int, height: int, dark: bool) -> None:
        scheme = "dark" if dark else "light"
        self._context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        self.page = self._context.new_page()
        self.page.set_default_timeout(90_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def picture(self, name: str, *, full: bool = True) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=full)

    def close(self) -> None:
        self._context.close()


class Opener:
    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.opened: list[Opened] = []

    def __call__(
        self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> Opened:
        self.opened.append(Opened(self._browser, path, width, height, dark))
        return self.opened[-1]


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opener]:
    """Opens pages; at the end none may have complained, nor asked for anything but itself."""
    opener = Opener(chromium)
    yield opener
    for one in opener.opened:
        complaints, requests = one.complaints, one.requests
        one.close()
        assert not complaints
        assert len(requests) == 1

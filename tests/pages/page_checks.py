"""What must be true of every page, asked in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_CHECKS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").rstrip()


def check_page(page: Any) -> None:
    """Controls and regions have names of their own, headings an order, charts a table, nothing is
    cut or overlaps, and the page does not scroll sideways."""
    run = f"const checks = {_CHECKS}; return Object.entries(checks).map(([n, f]) => [n, f()]);"
    found = dict(page.evaluate(f"() => {{ {run} }}"))
    assert len(found) == 7
    wrong = {name: what[:5] for name, what in found.items() if what}
    assert not wrong, wrong

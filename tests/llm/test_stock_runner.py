"""Our files in ExecuTorch's own ``TextLLMRunner``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import LONGEST, VOCABULARY, folder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from penstock.llm import load
from penstock.llm.export.compile import compile_model

RUNNER = """
import json, sys
import executorch.kernels.quantized
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
runner = TextLLMRunner(sys.argv[1], sys.argv[2])
options = GenerationConfig(max_new_tokens=12, temperature=0.0, echo=False)
answers = []
for prompt in json.loads(sys.argv[3]):
    pieces = []
    runner.reset()
    runner.generate(prompt, options, token_callback=pieces.append)
    answers.append("".join(pieces))
print("answers:", json.dumps(answers))
"""


@pytest.fixture(scope="module")
def ascii_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model all of whose tokens are printable: the runner's binding for Python fails on
    pieces that are no whole characters."""
    place = tmp_path_factory.mktemp("ascii")
    path = folder("llama2", place)
    letters = ["Ġ", *map(chr, range(33, 127))]
    pairs = [a + b for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    vocabulary = {text: i for i, text in enumerate((letters + pairs)[:VOCABULARY])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    (path / "tokenizer.json").write_text(tokenizer.to_str())
    compile_model(path, scheme="none", longest=LONGEST, chunk=8).save(place / "ascii.pte")
    return place / "ascii.pte"


def test_the_same_answers(ascii_file: Path) -> None:
    """Prompts shorter and longer than the chunk that the file takes at once."""
    prompts = ["Hello", "The quick brown fox jumps"]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(ascii_file),
         str(ascii_file.with_suffix(".tokenizer.json")), json.dumps(prompts)],
        capture_output=True, timeout=300,
    )  # fmt: skip
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    (line,) = [line for line in output.splitlines() if "answers: " in line]
    theirs = json.loads(line[line.index("answers: ") + 9 :])
    model = load(ascii_file)
    assert theirs == [model.generate(prompt, max_tokens=12).text for prompt in prompts]

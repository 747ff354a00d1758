"""Our files in ExecuTorch's own ``TextLLMRunner``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny_models import LONGEST, VOCABULARY, folder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from penstock.llm import load
from penstock.llm.export.compile import compile_model

RUNNER = """
import json, sys
import executorch.kernels.quantized
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
options = GenerationConfig(max_new_tokens=12, temperature=0.0, echo=False)
files, tokenizer, prompts = map(json.loads, sys.argv[1:])
answers = {}
for file in files:
    runner = TextLLMRunner(file, tokenizer)
    answers[file] = []
    for prompt in prompts:
        pieces = []
        runner.reset()
        runner.generate(prompt, options, token_callback=pieces.append)
        answers[file].append("".join(pieces))
print("answers:", json.dumps(answers))
"""


#: One of each architecture and what sets it apart; the runner prints the end's token too, which
#: these do not come to.
ARCHITECTURES = (
    "llama2", "llama3", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3",
    "phi3_part", "smollm3", "olmo2", "granite", "seed_oss",
)  # fmt: skip


def ascii_tokenizer() -> Tokenizer:
    """All its tokens are printable: the runner's binding for Python fails on pieces that are no
    whole characters."""
    letters = ["Ġ", *map(chr, range(33, 127))]
    pairs = [a + b for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    vocabulary = {text: i for i, text in enumerate((letters + pairs)[:VOCABULARY])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_the_same_answers(tmp_path: Path) -> None:
    """Prompts shorter and longer than the chunk that the files take at once."""
    prompts = ["Hello", "The quick brown fox jumps"]
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(ascii_tokenizer().to_str())
    files = []
    for name in ARCHITECTURES:
        path = folder(name, tmp_path)
        (path / "tokenizer.json").write_text(tokenizer.read_text())
        files.append(str(tmp_path / f"{name}.pte"))
        compile_model(path, scheme="none", longest=LONGEST, chunk=8).save(files[-1])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(json.dumps, (files, str(tokenizer), prompts))],
        capture_output=True, timeout=300,
    )  # fmt: skip
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    (line,) = [line for line in output.splitlines() if "answers: " in line]
    theirs = json.loads(line[line.index("answers: ") + 9 :])
    for file in files:
        model = load(file)
        ours = [model.generate(prompt, max_tokens=12).text for prompt in prompts]
        assert theirs[file] == ours, file

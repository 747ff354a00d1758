"""Language models: streams, conversations, seeds, the end of the context, wrong use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import LONGEST, reference

import penstock
from penstock.errors import InputError, InvalidProgramError
from penstock.llm import Answer, LanguageModel, load

PROMPT = "Hello there"


def eager_tokens(prompt: list[int], count: int) -> list[int]:
    """What transformers generates, greedily, up to an end."""
    tokens = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits = reference("llama2")(torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] == 257:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


def test_greedy_is_transformers_answer(tiny: LanguageModel) -> None:
    prompt = tiny.tokenizer.encode(PROMPT)
    answer = tiny.generate(PROMPT, max_tokens=20)
    assert answer.tokens == eager_tokens(prompt, 20)
    assert answer.finish in ("length", "end") and answer.read == len(prompt)
    assert answer.text == "".join(tiny.stream(PROMPT, max_tokens=20))
    assert str(answer) == answer.text


def test_log_probabilities(tiny: LanguageModel) -> None:
    prompt = tiny.tokenizer.encode(PROMPT)
    answer = tiny.generate(PROMPT, max_tokens=6, logprobs=True)
    with torch.no_grad():
        logits = reference("llama2")(torch.tensor([[*prompt, *answer.tokens]])).logits[0]
    wanted = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    wanted = wanted[torch.arange(len(answer.tokens)), answer.tokens]
    np.testing.assert_allclose(answer.logprobs, wanted.numpy(), atol=1e-4)


def test_seeds_reproduce(tiny: LanguageModel) -> None:
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 3.0, "top_p": 0.95}
    first = tiny.generate(PROMPT, seed=1, **options).tokens
    assert tiny.generate(PROMPT, seed=1, **options).tokens == first
    assert tiny.generate(PROMPT, seed=2, **options).tokens != first


def test_the_common_beginning_is_read_once(tiny: LanguageModel) -> None:
    tokens = list(range(30, 50))
    assert tiny.generate(tokens, max_tokens=1).read == 20
    again = tiny.generate([*tokens[:15], 3, 4, 5], max_tokens=4)
    assert again.read == 3
    assert again.tokens == load_fresh(tiny).generate([*tokens[:15], 3, 4, 5], max_tokens=4).tokens
    assert tiny.generate([*tokens[:15], 3, 4, 5], max_tokens=1).read == 1


def load_fresh(model: LanguageModel) -> LanguageModel:
    path = model._decoder.program.__reduce__()[1][0][0]
    return load(path, threads=1)


def test_conversations_share_weights_not_caches(tiny: LanguageModel) -> None:
    one, other = tiny.conversation(), tiny.conversation("be brief")
    answers = {}
    for name, conversation in (("a", one), ("b", other)):
        answers[name] = [conversation.send("x" + name, max_tokens=2)]
    for name, conversation in (("a", one), ("b", other)):
        answers[name].append(conversation.send("y", max_tokens=2))
    for name, system in (("a", None), ("b", "be brief")):
        alone = load_fresh(tiny).conversation(system)
        wanted = [alone.send("x" + name, max_tokens=2), alone.send("y", max_tokens=2)]
        assert answers[name] == wanted
    assert one.last.read < one.length  # not the whole conversation again


def test_rewind(tiny: LanguageModel) -> None:
    conversation = tiny.conversation()
    conversation.send("a", max_tokens=3)
    kept = [dict(message) for message in conversation.messages]
    first = conversation.send("b", max_tokens=3)
    conversation.rewind()
    assert conversation.messages == kept
    assert conversation.send("b", max_tokens=3) == first
    with pytest.raises(InputError, match="cannot rewind 3 turns: the conversation has 2"):
        conversation.rewind(3)


def test_a_broken_stream_leaves_a_whole_conversation(tiny: LanguageModel) -> None:
    conversation = tiny.conversation()
    pieces = conversation.stream("a", max_tokens=5)
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert conversation.messages[1]["content"] == first
    conversation.send("b", max_tokens=2)


def test_chat(tiny: LanguageModel) -> None:
    messages = [{"role": "user", "content": "hi"}]
    tokens = tiny.chat_tokens(messages)
    assert tokens == tiny.tokenizer.encode("<|user|>hi<|end|><|assistant|>")
    assert tiny.chat(messages, max_tokens=4) == tiny.generate(tokens, max_tokens=4).text


def test_the_contexts_end(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match=f"prompt has 60 tokens, the file has {LONGEST}"):
        tiny.generate([1] * 60)
    full = tiny.generate([1] * (LONGEST - 3))
    assert full.finish in ("context", "end") and len(full.tokens) <= 4
    with pytest.raises(InputError, match="the context is full"):
        tiny.generate([5] * (LONGEST - 3), max_tokens=40)
    slid = tiny.generate([5] * 60, max_tokens=90, overflow="slide")
    assert slid.finish in ("length", "end")
    assert len(tiny._idle[0].tokens) <= LONGEST


def test_progress_of_a_long_prompt(tiny: LanguageModel) -> None:
    told: list[tuple[int, int]] = []
    tiny.generate([7] * 20, max_tokens=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(8, 20), (16, 20), (20, 20)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"stop": [""]}, "stop is"),
        ({"overflow": "wrap"}, "overflow is 'wrap'"),
        ({"warmth": 1}, "unknown option 'warmth'"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"seed": 1.5}, "seed is 1.5; it must be an integer"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"stop": 5}, "stop is 5"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str, tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match=said):
        tiny.generate(PROMPT, **options)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        ("hi", "not a str"),
        ([{"role": "user"}], "message 0 must have"),
        ([{"role": "wizard", "content": "x"}], "role 'wizard'; the roles are system, user"),
        ([{"role": "user", "content": 3}], "a int as its content"),
    ],
)
def test_wrong_messages(messages: Any, said: str, tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match=said):
        tiny.chat(messages)


def test_empty_and_unknown_tokens(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="token -1; the file has 0 to 299"):
        tiny.generate([-1])
    for prompt in (None, 5, [1.5], ["a"], b"abc"):
        with pytest.raises(InputError, match="the prompt is"):
            tiny.generate(prompt)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="behind 'a' it has .*half a character"):
        tiny.generate("a\udcff")
    assert tiny.generate([], max_tokens=1).read == 1  # the token that begins
    with pytest.raises(InputError, match="the token 10000; the file has 0 to 299"):
        tiny.generate([10_000], max_tokens=1)
    assert tiny.generate(PROMPT, max_tokens=2).tokens  # nothing is left of it


def test_files_that_are_none(tmp_path: Path, tiny_file: Path) -> None:
    other = penstock.lower(torch.nn.ReLU(), (torch.ones(2),))
    other.save(tmp_path / "relu.pte")
    with pytest.raises(InputError, match="relu.pte is no language model"):
        load(tmp_path / "relu.pte")
    tokenizer = tiny_file.with_suffix(".tokenizer.json")
    with pytest.raises(InputError, match="takes no tokens"):
        load(tmp_path / "relu.pte", tokenizer=tokenizer)
    with pytest.raises(InputError, match="there is no tokenizer"):
        load(tiny_file, tokenizer=tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        load(tiny_file, tokenizer=tmp_path / "bad.json")
    content = tiny_file.read_bytes()
    (tmp_path / "short.pte").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidProgramError):
        load(tmp_path / "short.pte")


def test_the_tokenizer_beside_the_file_is_the_one_in_it(tiny_file: Path, tmp_path: Path) -> None:
    moved = shutil.copy(tiny_file, tmp_path / "alone.pte")
    alone = load(moved)
    given = load(moved, tokenizer=tiny_file.with_suffix(".tokenizer.json"))
    assert alone.tokenizer.encode("aé") == given.tokenizer.encode("aé")
    with pytest.raises(InputError, match="no chat template"):
        given.chat([{"role": "user", "content": "x"}])


def test_running_needs_no_torch(tiny_file: Path) -> None:
    code = (
        "import sys, penstock; m = penstock.llm.load(sys.argv[1]);"
        "m.chat([{'role': 'user', 'content': 'x'}], max_tokens=2);"
        "print(sorted({'torch', 'gguf', 'penstock.compiler'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_answers_begin_empty() -> None:
    assert Answer().tokens_per_second == 0.0

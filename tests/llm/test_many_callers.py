"""Language models behind several callers: streams side by side, threads, interrupts, pickles."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import InputError
from penstock.llm import LanguageModel, load
from penstock.llm.cache import Context

PROMPTS = ("Hello there", "The quick brown fox", "xyz", "One, two, three")
#: drawn, so that they seldom end early
OPTIONS: dict[str, Any] = {"max_tokens": 10, "temperature": 2.0, "seed": 5}


def answers(model: LanguageModel) -> list[str]:
    return [model.generate(prompt, **OPTIONS).text for prompt in PROMPTS]


def test_streams_side_by_side(tiny: LanguageModel) -> None:
    wanted = answers(tiny)
    streams = [tiny.stream(prompt, **OPTIONS) for prompt in PROMPTS]
    found = zip(*zip_longest(*streams, fillvalue=""), strict=True)
    assert ["".join(pieces) for pieces in found] == wanted
    assert answers(tiny) == wanted


def test_threads(tiny: LanguageModel) -> None:
    wanted = answers(tiny)
    begin = threading.Barrier(len(PROMPTS))

    def stream(prompt: str) -> str:
        begin.wait()
        return "".join(tiny.stream(prompt, **OPTIONS))

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        for _ in range(5):
            assert list(threads.map(stream, PROMPTS)) == wanted
        jobs = [threads.submit(tiny.generate, prompt, **OPTIONS) for prompt in PROMPTS * 3]
        assert [job.result().text for job in jobs] == wanted * 3


def test_an_abandoned_stream_is_in_nobodys_way(tiny: LanguageModel) -> None:
    wanted = answers(tiny)
    abandoned = tiny.stream(PROMPTS[1], **OPTIONS)
    begun = next(abandoned)
    assert answers(tiny) == wanted
    assert tiny.generate(PROMPTS[-1], **OPTIONS).read == 1  # what is in the cache is used again
    assert begun + "".join(abandoned) == wanted[1]


def test_a_conversation_goes_on_past_an_answer_that_nobody_read_to_its_end(
    tiny: LanguageModel,
) -> None:
    """As after Ctrl-C in a notebook, where the traceback holds the iterator."""
    conversation = tiny.conversation()
    held = conversation.stream("a", **OPTIONS)
    begun = next(held)
    conversation.send("b", max_tokens=3)
    kept = [message["content"] for message in conversation.messages]
    assert kept[:3] == ["a", begun, "b"] and len(kept) == 4
    with pytest.raises(InputError, match="the conversation went on while this answer was not"):
        "".join(held)
    assert [message["content"] for message in conversation.messages] == kept
    other = conversation.stream("c", **OPTIONS)
    next(other)
    conversation.rewind()
    other.close()
    assert [message["content"] for message in conversation.messages] == kept


def test_a_conversation_of_several_threads_has_turns(tiny: LanguageModel) -> None:
    conversation = tiny.conversation()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: conversation.send(n, max_tokens=1), "abcd"))
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["user", "assistant"] * 4
    assert sorted(m["content"] for m in conversation.messages[::2]) == list("abcd")


@pytest.mark.parametrize("moment", [0, 1, 2, 3])
def test_an_interrupt_while_contexts_are_exchanged(
    tiny: LanguageModel, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C when some rows of the other context are in place already."""
    decoder = tiny._decoder
    one, other = Context(decoder), Context(decoder)
    one.read(list(range(20)))
    other.read(list(range(30, 45)))
    wanted = Context(decoder).read([*range(20), 7])
    other.read([*range(30, 45), 9])

    class Interrupted(dict[str, np.ndarray]):
        def items(self) -> Any:
            for count, item in enumerate(super().items()):
                if count == moment % 2:
                    raise KeyboardInterrupt
                yield item

    rows = one.rows
    one.rows = Interrupted(rows)
    with pytest.raises(KeyboardInterrupt):
        one.feed([7])
    one.rows = rows
    if moment < 2:
        np.testing.assert_allclose(one.feed([7]), wanted, atol=1e-4)
    again = Context(decoder).read([*range(30, 45), 9, 8])
    np.testing.assert_allclose(other.feed([8]), again, atol=1e-4)


def _answers(model: LanguageModel, queue: Any) -> None:
    queue.put(answers(model))


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_other_processes(tiny: LanguageModel, how: str) -> None:
    wanted = answers(tiny)
    context = multiprocessing.get_context(how)
    queue = context.Queue()
    process = context.Process(target=_answers, args=(tiny, queue))
    process.start()
    assert queue.get(timeout=120) == wanted
    process.join()


def test_pickled(tiny: LanguageModel) -> None:
    again = pickle.loads(pickle.dumps(tiny))
    assert answers(again) == answers(tiny)
    conversation = tiny.conversation("be brief")
    conversation.send("a", max_tokens=3)
    other = pickle.loads(pickle.dumps(conversation))
    assert other.messages == conversation.messages
    assert other.send("b", max_tokens=3) == conversation.send("b", max_tokens=3)


def test_calls_in_the_middle_of_a_call(tiny: LanguageModel) -> None:
    """The inner one took the rows of the outer, which went on with them."""
    prompt, told = "The quick brown fox jumps over", []
    expected = tiny.generate(prompt, **OPTIONS).text

    def inner(done: int, total: int) -> None:
        with pytest.raises(InputError, match="the model was called in the middle of a call of it"):
            tiny.generate("xyz", max_tokens=1)
        told.append((done, total))

    assert tiny.generate("abc" + prompt, progress=inner, max_tokens=1).read > 8
    assert tiny.generate(prompt, progress=inner, **OPTIONS).text == expected
    assert len(told) > 2


def test_loaded_from_its_content(tiny: LanguageModel, tiny_file: Path) -> None:
    again = load(tiny_file.read_bytes(), threads=1)
    for model in (again, pickle.loads(pickle.dumps(again))):
        assert answers(model) == answers(tiny)


def test_arguments_of_other_types(tiny: LanguageModel, tiny_file: Path) -> None:
    conversation = tiny.conversation("Be brief.")
    assert repr(conversation).startswith("Conversation(messages: 1, tokens: 0 of ")
    with pytest.raises(InputError, match="cannot rewind 'x' turns"):
        conversation.rewind("x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the tokenizer is a int; give the path of its file"):
        load(tiny_file, tokenizer=5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="progress is a int; give a function"):
        tiny.generate("x", progress=5)  # type: ignore[arg-type]

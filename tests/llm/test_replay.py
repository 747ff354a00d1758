"""Tokens one by one: calls of the same shapes are done again in few steps, with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import LONGEST, folder

from penstock import load
from penstock.errors import InputError, InvalidProgramError
from penstock.llm.cache import Decoder
from penstock.llm.export.compile import compile_model
from penstock.runtime import mapped, replay
from penstock.runtime.engines.native.library import reason_against

pytestmark = pytest.mark.skipif(reason_against() is not None, reason="there are no kernels here")
TOKENS = [int(t) for t in np.random.default_rng(2).integers(0, 250, LONGEST)]


def long_way(decoder: Decoder, tokens: list[int], start: int) -> np.ndarray:
    """The answer without a replay, and without one for the next call."""
    decoder.method._replay, decoder.method._shapes = None, []
    try:
        return decoder.run(tokens, start)
    finally:
        decoder.method._replay, decoder.method._shapes = None, []


def two(path: Path, threads: int = 1) -> tuple[Decoder, Decoder]:
    return Decoder(load(path, threads=threads), ""), Decoder(load(path, threads=threads), "")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "scheme", "held"),
    [
        ("llama2", "none", "float32"),
        ("llama3", "dynamic_4bit", "float32"),
        ("mistral", "dynamic_per_channel", "float32"),
        ("gemma2", "dynamic_4bit", "int8"),
    ],
)
def test_the_same_bits(name: str, scheme: str, held: str, threads: int, tmp_path: Path) -> None:
    source = folder(name, tmp_path)
    path = tmp_path / "model.pte"
    compile_model(source, scheme=scheme, longest=LONGEST, chunk=8, cache=held).save(path)
    ours, theirs = two(path, threads)
    place = 0
    # One by one, by chunks (two of a size too), and one by one again.
    for count in (5, 1, 1, 1, 1, 4, 4, 4, 4, 1, 1, 1, 1):
        part = TOKENS[place : place + count]
        found, wanted = ours.run(part, place), long_way(theirs, part, place)
        np.testing.assert_array_equal(found, wanted)
        place += count
    assert ours.method._replay is not None and theirs.method._replay is None
    for key, rows in theirs.method.buffers.items():
        np.testing.assert_array_equal(ours.method.buffers[key], rows)


def replaying(path: Path) -> Decoder:
    """A decoder at position 5, after calls that were replayed."""
    decoder = Decoder(load(path, threads=1), "")
    for place in range(5):
        decoder.run(TOKENS[place : place + 1], place)
    assert decoder.method._replay is not None
    return decoder


def test_a_large_table_is_read_from_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mapped, "_LARGE", 1)
    path = tmp_path / "model.pte"
    compile_model(
        folder("llama2", tmp_path), scheme="dynamic_per_channel", longest=LONGEST, chunk=8
    ).save(path)
    ours = replaying(path)
    (table,) = [
        tensor
        for tensor in ours.method._state.slots
        if tensor is not None and tensor.layout.dtype == np.int8 and tensor.layout.shape[0] == 300
    ]
    assert mapped.file_of(table.memory) is not None
    np.testing.assert_array_equal(ours.run([7], 5), long_way(replaying(path), [7], 5))
    with pytest.raises(InvalidProgramError, match="embedding_byte"):
        ours.run([300], 6)


@pytest.mark.parametrize("place", [LONGEST, -1, 1 << 40])
def test_a_position_out_of_range_is_an_error(tiny_file: Path, place: int) -> None:
    decoder = replaying(tiny_file)
    before = {key: rows.copy() for key, rows in decoder.method.buffers.items()}
    with pytest.raises(InvalidProgramError, match="index"):
        decoder.method.run([np.array([[7]]), np.array([place])])
    for key, rows in before.items():
        np.testing.assert_array_equal(decoder.method.buffers[key], rows)
    wanted = long_way(replaying(tiny_file), [7], 5)
    np.testing.assert_array_equal(decoder.run([7], 5), wanted)


def test_a_wrong_input_has_the_message_of_the_long_way(tiny_file: Path) -> None:
    method = replaying(tiny_file).method
    with pytest.raises(InputError, match="float32, the program takes int64"):
        method.run([np.zeros((1, 1), np.float32), np.array([5])])
    with pytest.raises(InputError, match="takes 2 inputs"):
        method.run([np.zeros((1, 1), np.int64)])


def test_answers_are_the_callers(tiny_file: Path) -> None:
    decoder = replaying(tiny_file)
    first = decoder.run([7], 5)
    kept = first.copy()
    second = decoder.run([9], 6)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_rows_written_between_calls_are_seen(tiny_file: Path) -> None:
    ours, theirs = replaying(tiny_file), replaying(tiny_file)
    for decoder in (ours, theirs):
        for rows in decoder.method.buffers.values():
            rows[..., :4, :] *= 0.5
    np.testing.assert_array_equal(ours.run([7], 5), long_way(theirs, [7], 5))


def test_lent_arrays_and_observers_go_the_long_way(tiny_file: Path) -> None:
    ours = replaying(tiny_file)
    wanted = ours.run([7], 5)
    inputs = [np.array([[7]]), np.array([5])]
    out = np.empty(ours.method.outputs[0].shape, np.float32)  # type: ignore[union-attr]
    (found,) = ours.method.run(inputs, out=out)
    assert found is out
    np.testing.assert_array_equal(out[0], wanted)
    seen: list[int] = []
    (observed,) = ours.method.observed(inputs, lambda done: seen.append(done.position))
    np.testing.assert_array_equal(observed[0], wanted)
    assert len(seen) == len(ours.method._bound)
    for _ in range(3):
        np.testing.assert_array_equal(ours.run([7], 5), wanted)
    assert ours.method._replay is not None


def test_two_programs_on_one_copy_of_the_weights(tiny_file: Path) -> None:
    program = load(tiny_file, threads=1)
    one = Decoder(program, "")
    other = Decoder(program.clone(), "")
    for place in range(6):
        first = one.run(TOKENS[place : place + 1], place)
        second = other.run(TOKENS[place + 9 : place + 10], place)
    wanted = Decoder(load(tiny_file, threads=1), "")
    for place in range(6):
        left = long_way(wanted, TOKENS[place : place + 1], place)
    np.testing.assert_array_equal(first, left)
    for place in range(6):
        right = long_way(wanted, TOKENS[place + 9 : place + 10], place)
    np.testing.assert_array_equal(second, right)


def test_what_cannot_be_done_again_is_tried_twice(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(load(tiny_file, threads=1), "")
    tries = []
    monkeypatch.setattr(replay.Recording, "replay", lambda *_: tries.append(1))
    for place in range(9):
        decoder.run(TOKENS[place : place + 1], place)
    assert len(tries) == 2 and decoder.method._replay is None
    monkeypatch.undo()
    wanted = long_way(replaying(tiny_file), TOKENS[5:6], 5)
    np.testing.assert_array_equal(decoder.run(TOKENS[5:6], 5), wanted)

"""A loaded decoder and the conversations that share it: :class:`Decoder`, :class:`Context`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penstock.errors import InputError
from penstock.formats import program as formats
from penstock.formats.program import KernelCall, OptionalTensorList, Tensor
from penstock.llm import assets as settings
from penstock.llm.memory import give_back_memory
from penstock.llm.shorter import CannotShorten, shortened
from penstock.runtime import LoadedProgram, Method, TensorSpec, forks
from penstock.runtime.program import DEFAULT_METHOD
from penstock.runtime.turns import Turns, refusal

#: Told how many tokens of how many were read.
Reading = Callable[[int, int], None]

#: After so many tokens at once memory is given back: what they took (for 128 of SmolLM2 10 MB, and
#: the pages of the embedding that their rows lie in) the next ones, one by one, do not need.
MANY = 64
#: Where attention reads all rows, hidden ones too: those that caches begin with, and how many times
#: as many they get when a conversation needs more. It costs as much as 10 tokens or so, and a row
#: about 3 microseconds a token.
ROWS, GROWTH = 128, 4

#: What a file may say of itself, and what it is taken for where it does not.
_METADATA: dict[str, Any] = {
    "get_max_seq_len": None, "get_max_context_len": None, "enable_dynamic_shape": True,
    "use_kv_cache": True, "get_eos_ids": (), "get_bos_id": None,
}  # fmt: skip


class Decoder:
    """A program that takes tokens and a position and gives logits.

    Its memory holds one context's keys and values at a time. When another context's turn comes,
    the rows are put aside and the other's put back; weights are there once.
    """

    def __init__(self, program: LoadedProgram, path: str) -> None:
        """Raises :class:`InputError` for a program that is no language model."""
        self.program = program
        said = {name: _constant(program, name, value) for name, value in _METADATA.items()}
        limit, longest = said["get_max_seq_len"], said["get_max_context_len"]
        longest = limit if longest is None else longest
        #: positions that a context may have
        self.longest = longest if isinstance(longest, int) else 0
        #: the method with caches of so many rows; all on the same packed weights
        self._methods: dict[int, Method] = {}
        self._shortens = settings.KEY in program.program.named_data
        self.method = method = _checked(self._first(), path)
        chunk = _chunk(method)
        self.chunk = chunk if not isinstance(limit, int) else max(1, min(chunk, limit))
        if not isinstance(longest, int) or longest < 1 or said["use_kv_cache"] is False:
            raise InputError(
                f"{path} does not say how long a context it holds (get_max_context_len), or keeps "
                "none (use_kv_cache)"
            )
        self.ends = _integers(said["get_eos_ids"])
        begin = said["get_bos_id"]
        self.begin = begin if isinstance(begin, int) else None
        spec = method.inputs[0]
        assert isinstance(spec, TensorSpec)
        self._dtype = spec.dtype
        #: whether a call may have fewer tokens than the method takes
        self.varies = spec.dynamic or self.chunk == 1
        self._positions = self._takes_positions()
        self.turns = Turns()
        self._active: Context | None = None
        #: how many tokens there are: as many as logits
        self.vocabulary = _last_size(method.outputs[0])
        file = program.program.method(method.name)
        written = _written_axes(file) if file else {}
        self._rows = {
            value.name: axis
            for place, value in enumerate(file.values if file else ())
            if isinstance(value, Tensor) and value.name in method.buffers
            if value.name and (axis := _axis(value.shape, longest, written.get(place))) is not None
        }

    @property
    def room(self) -> int:
        """Positions that there are rows for as yet."""
        return next(rows for rows, method in self._methods.items() if method is self.method)

    @property
    def lock(self) -> forks.Lock:
        """To be held by who reads several times in a row; the same thread may take it again."""
        return self.turns.lock

    def _takes_positions(self) -> bool:
        """Whether the second input is each token's position, and not that of the first."""
        spec = self.method.inputs[1]
        assert isinstance(spec, TensorSpec)
        return spec.dynamic and spec.shape[-1:] == self.method.inputs[0].shape[-1:]  # type: ignore[union-attr]

    def _first(self) -> Method | None:
        """The method to begin with: with all rows where attention leaves out those that its mask
        hides, else with the first ones."""
        if self._shortens and self.longest > ROWS and len(self.program.engines) > 1:
            whole = self._of_length(self.longest)
            if whole is None or whole.skips_hidden:
                self._shortens = False
                return whole
            few = self._of_length(ROWS)
            if self._shortens:
                del self._methods[self.longest]
            return few
        return self._of_length(ROWS)

    def _of_length(self, rows: int) -> Method | None:
        """The method with caches of ``rows`` rows, where it can be had, or of all."""
        found = self.program.program.method(DEFAULT_METHOD)
        if found is None:
            return None
        rows = min(rows, self.longest) if self._shortens else self.longest
        if rows not in self._methods:
            like = next(iter(self._methods.values()), None)
            try:
                self._methods[rows] = self._made(found, rows, like)
            except CannotShorten:
                self._shortens, rows = False, self.longest
                if rows not in self._methods:
                    self._methods[rows] = self._made(found, rows, None)
        return self._methods[rows]

    def _made(self, method: formats.Method, rows: int, like: Method | None) -> Method:
        if rows == self.longest:
            return self.program.prepare(method, like=like)
        short = shortened(method, self.longest, rows)
        return self.program.prepare(short.method, short.adapt, like)

    def _fit(self, count: int, keep: int) -> None:
        """Makes room for ``count`` positions; the caches' first ``keep`` rows stay. Where none have
        to, the least room that is enough."""
        if not self._shortens or (keep and count <= self.room):
            return
        rows = ROWS
        while rows < min(count, self.longest) or (keep and rows < self.room):
            rows *= GROWTH
        if min(rows, self.longest) == self.room:
            return
        held = self._copies(keep) if keep else {}
        method = self._of_length(rows)
        assert method is not None
        buffers = method.buffers
        for name, old in held.items():
            buffers[name][_first(self._rows[name], old.shape[self._rows[name]])] = old
        self.method = method

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raises :class:`InputError` for a token that the file does not have."""
        wrong = next((t for t in tokens if not 0 <= t < self.vocabulary), None)
        if wrong is not None:
            raise InputError(
                f"the prompt has the token {wrong}; the file has 0 to {self.vocabulary - 1}: give "
                "others, or the model's own tokenizer"
            )

    def run(self, tokens: Sequence[int], start: int) -> np.ndarray:
        """The logits float32 [vocabulary] behind the last of at most ``chunk`` tokens."""
        self._fit(start + len(tokens), start)
        inputs = np.asarray([tokens], self._dtype)
        place = np.arange(start, start + len(tokens)) if self._positions else np.array([start])
        (logits,) = self.method.run([inputs, place.astype(np.int64)])
        if len(tokens) >= MANY:
            self.program.release_pages()
            give_back_memory()
        last = np.asarray(logits).reshape(-1, logits.shape[-1])[-1]
        return np.asarray(last, np.float32)

    def enter(self, context: Context) -> None:
        """Makes ``context`` the one whose rows the program's memory holds."""
        if self._active is context:
            return
        if self._active is not None:
            self._active.rows = self._copies(len(self._active.tokens))
            self._active = None  # whatever interrupts what follows: its rows are the copies
        self._fit(len(context.tokens) if context.rows else 0, 0)
        buffers = self.method.buffers
        for name, rows in context.rows.items():
            buffers[name][_first(self._rows[name], rows.shape[self._rows[name]])] = rows
        known = min((rows.shape[self._rows[n]] for n, rows in context.rows.items()), default=0)
        del context.tokens[known:]  # what nobody put aside is read again
        context.rows = {}
        self._active = context

    def _copies(self, count: int) -> dict[str, np.ndarray]:
        if not self._rows:
            return {}
        buffers = self.method.buffers
        return {
            name: buffers[name][_first(axis, count)].copy() for name, axis in self._rows.items()
        }


class Context:
    """The tokens that a conversation has in the cache. Several share one :class:`Decoder`."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.tokens: list[int] = []
        #: the keys and values, while another context has the program's memory
        self.rows: dict[str, np.ndarray] = {}
        #: how many tokens the last :meth:`read` found there
        self.reused = 0
        #: what alone may read, as :meth:`feed` and :meth:`read` are told
        self.turn: object = None

    def rewind(self, length: int) -> None:
        """Forgets all tokens but the first ``length``.

        Raises :class:`InputError` unless there are so many.
        """
        if not 0 <= length <= len(self.tokens):
            raise InputError(
                f"cannot rewind to {length} tokens: the context has {len(self.tokens)}"
            )
        del self.tokens[length:]

    def feed(
        self, tokens: Sequence[int], reading: Reading | None = None, turn: object = None
    ) -> np.ndarray:
        """Reads more tokens, in chunks; the logits float32 [vocabulary] behind the last.

        Raises :class:`InputError` for none, for unknown ones, beyond the longest length, and
        where it is another's ``turn``, or in the middle of such a call.
        """
        turns = self.decoder.turns
        with turns.lock:
            self._check(turn)
            if turns.taken:
                raise refusal("the model", "load it once more for that")
            try:
                turns.taken = True
                return self._feed(tokens, reading)
            finally:
                turns.taken = False

    def _feed(self, tokens: Sequence[int], reading: Reading | None) -> np.ndarray:
        decoder = self.decoder
        decoder.check_tokens(tokens)
        wanted = [*self.tokens, *map(int, tokens)]
        decoder.enter(self)
        rest = wanted[len(self.tokens) :]
        if not rest:
            raise InputError("there is nothing to read: the prompt has no tokens")
        if len(wanted) > decoder.longest:
            raise InputError(
                f"{len(wanted)} tokens are more than the {decoder.longest} positions of the "
                "file; shorten the prompt, compile with a larger --max-length, or slide "
                "(overflow='slide')"
            )
        done, step = 0, decoder.chunk
        while done < len(rest):
            size = step if decoder.varies or len(rest) - done >= step else 1
            part = rest[done : done + size]
            logits = decoder.run(part, len(self.tokens))
            self.tokens += part
            done += len(part)
            if reading is not None:
                reading(done, len(rest))
        return logits

    def read(
        self, tokens: Sequence[int], reading: Reading | None = None, turn: object = None
    ) -> np.ndarray:
        """Makes the context be ``tokens``: keeps the longest common beginning, reads the rest.
        Raises what :meth:`feed` does."""
        with self.decoder.lock:
            self._check(turn)
            common = 0
            for mine, new in zip(self.tokens, tokens, strict=False):
                if mine != new:
                    break
                common += 1
            # The last token is read again where all are known: logits are kept nowhere.
            self.rewind(min(common, max(len(tokens) - 1, 0)))
            self.reused = len(self.tokens)
            return self.feed(tokens[len(self.tokens) :], reading, turn)

    def _check(self, turn: object) -> None:
        if turn is not self.turn:
            raise InputError(
                "the conversation went on while this answer was not at its end, which it has no"
                " more; read an answer to its end before the next message, or have a conversation"
                " for each"
            )


def _constant(program: LoadedProgram, name: str, default: Any) -> Any:
    if name not in program.methods:
        return default
    found = program.method(name)()
    if isinstance(found, tuple) and len(found) == 1:
        return found[0]
    return found


def _integers(found: Any) -> tuple[int, ...]:
    items = found if isinstance(found, (list, tuple)) else [found]
    return tuple(int(item) for item in items if isinstance(item, int))


def _checked(method: Method | None, path: str) -> Method:
    specs = method.inputs if method is not None else ()
    if (
        method is not None
        and len(specs) == 2
        and len(method.outputs) == 1
        and all(isinstance(spec, TensorSpec) and spec.dtype.kind == "i" for spec in specs)
        and isinstance(specs[0], TensorSpec)
        and len(specs[0].shape) == 2
    ):
        return method
    raise InputError(
        f"{path} is no language model: its method takes no tokens [1, n] and position; compile one "
        "with penstock compile and a checkpoint"
    )


def _chunk(method: Method) -> int:
    spec = method.inputs[0]
    assert isinstance(spec, TensorSpec)
    return int(spec.shape[1])


def _last_size(spec: object) -> int:
    return spec.shape[-1] if isinstance(spec, TensorSpec) and spec.shape else 0


def _written_axes(method: formats.Method) -> dict[int, int]:
    """The dimensions along which a method writes rows into values, by the operators that do."""
    found = {}
    for call in method.instructions:
        if not isinstance(call, KernelCall) or len(call.args) < 2:
            continue
        name = method.operators[call.operator].name
        indices = method.values[call.args[1]]
        if name == "aten::index_put_" and isinstance(indices, OptionalTensorList):
            found[call.args[0]] = len(indices.items) - 1
        elif name.startswith("llama::update_cache"):
            found[call.args[1]] = 1
    return found


def _axis(shape: tuple[int, ...], longest: int, written: int | None) -> int | None:
    """The dimension along which a cache has its rows: the one ``written`` along, else the last of
    several of that size."""
    if written is not None and written < len(shape) and shape[written] == longest:
        return written
    return max((axis for axis, size in enumerate(shape) if size == longest), default=None)


def _first(axis: int, count: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(count))

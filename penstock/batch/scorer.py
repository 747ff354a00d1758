"""What travels to workers: a program's file and options. It is loaded once in each process."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from penstock.batch.columns import runs
from penstock.batch.plan import Plan, make_plan
from penstock.batch.results import labels_of
from penstock.errors import InputError
from penstock.runtime.method import Method
from penstock.runtime.program import LoadedProgram, load
from penstock.runtime.sources import Source
from penstock.runtime.specs import TensorSpec


class _Load(NamedTuple):
    """What is loaded; two scorers of one process that agree in it share a program."""

    files: tuple[Source, ...]
    engine: str
    threads: int


class _Clones:
    """A program, and as many clones of it as calls were ever made at a time."""

    def __init__(self, what: _Load) -> None:
        first, *data = what.files
        self.program = load(first, data=data, engine=what.engine, threads=what.threads)
        self._free: queue.SimpleQueue[LoadedProgram] = queue.SimpleQueue()
        self._free.put(self.program)

    @contextmanager
    def lent(self) -> Iterator[LoadedProgram]:
        try:
            one = self._free.get_nowait()
        except queue.Empty:
            one = self.program.clone()
        try:
            yield one
        finally:
            self._free.put(one)


_loaded: dict[_Load, _Clones] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Scorer:
    """Runs a program on the rows of tables: ``scorer(table)`` gives a table with one row for each,
    which has the columns that no input reads and one for each output, ``output_0`` and so on.

    It pickles as what it was made of. Whatever it is called with first in a process loads the
    program there; calls from several threads compute at the same time, on clones.

    A row holds one sample, without the program's first dimension where that is the batch's: lists
    of numbers (nested ones, or one with as many numbers as the input has), numbers, or images as
    encoded bytes (JPEG, PNG …), which are prepared as ``penstock run --inputs`` does. Integers may
    have another width than the program's, and floats another precision; integers for floats, or
    floats for integers, are an error.

    Args:
        program: the program's file, which every worker must be able to read, or its content.
        columns: the columns that feed the inputs, in their order. By default those that are called
            as keyword inputs are, else ``input_0`` and so on; for a lone input the only column that
            has images or lists of numbers.
        keep: the columns to hand on; by default all that feed no input.
        labels: names of a classifier's classes; adds a column ``labels`` with the likeliest five.
        data: the program's data files (``.ptd``).
        engine: see :func:`penstock.load`.
        method: the method to run; by default ``forward``, or the only one there is.
        batch_size: rows of one call, where the program's first dimension is dynamic; by default up
            to 16. A program whose first dimension is fixed gets as many as that says.
        threads: of one call. Workers of one CPU each suit batches best.
    """

    program: Source
    columns: Sequence[str] | None = None
    keep: Sequence[str] | None = None
    labels: Sequence[str] = ()
    data: Sequence[Source] = ()
    engine: str = "auto"
    method: str | None = None
    batch_size: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        """Paths are made absolute, for workers have folders of their own; lists become tuples."""
        for name in ("columns", "keep", "labels", "data"):
            value = getattr(self, name)
            if isinstance(value, (str, bytes)):
                raise InputError(f"{name} is {value!r}; give a list")
            object.__setattr__(self, name, value if value is None else tuple(value))
        object.__setattr__(self, "program", _portable(self.program))
        object.__setattr__(self, "data", tuple(map(_portable, self.data)))

    def __call__(self, table: Any) -> Any:
        """The answers to a table's rows: a ``pyarrow.Table`` or ``RecordBatch``, or a pandas
        ``DataFrame``; they come as what was given (of pandas with Arrow's types).

        Raises:
            InputError: it is no table, or a column or a row does not fit; that is named.
            InvalidProgramError, UnsupportedError, BackendUnavailableError: see
                :func:`penstock.load`.
        """
        if table is None or isinstance(table, (Mapping, list, tuple, np.ndarray)):
            raise InputError(
                f"a Scorer takes a table of pyarrow or pandas, not a {type(table).__name__}: "
                'pyarrow.table({"x": ...}); Ray gives one with batch_format="pyarrow"'
            )
        if isinstance(table, pa.RecordBatch):
            return self.answers(table)
        if isinstance(table, pa.Table):
            return pa.Table.from_batches(self.stream(table.to_batches()), self.schema(table.schema))
        import pandas

        found = self.answers(pa.RecordBatch.from_pandas(table, preserve_index=False))
        return found.to_pandas(types_mapper=pandas.ArrowDtype).set_index(table.index)

    def stream(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The answers to record batches, one by one, as ``mapInArrow`` of Spark wants them."""
        first = 0
        for batch in batches:
            yield self.answers(batch, first)
            first += len(batch)

    def schema(self, source: Any) -> Any:
        """The Arrow schema of the answers to a table of the schema ``source``. Raises what a call
        raises."""
        return self.plan(source).schema(source)

    def plan(self, source: Any) -> Plan:
        """How tables of the schema ``source`` are run. Raises what a call raises."""
        with self._clones().lent() as program:
            return self._plan(program, source)

    def answers(self, batch: Any, first: int = 0) -> Any:
        """The answers to a record batch, whose first row error messages call ``first``."""
        with self._clones().lent() as program:
            method = program.method(self.method)
            plan = self._plan(program, batch.schema)
            schema = plan.schema(batch.schema)
            if not len(batch):
                return pa.RecordBatch.from_pylist([], schema)
            pieces: list[list[Any]] = [[] for _ in plan.results]
            for start in range(0, len(batch), plan.step):
                part = batch.slice(start, plan.step)
                for kept, more in zip(pieces, _run(method, plan, part, first + start), strict=True):
                    kept += more
        columns = [batch.column(name) for name in plan.keep]
        columns += [result.array(p) for result, p in zip(plan.results, pieces, strict=True)]
        if plan.labels:
            columns.append(labels_of(plan.results, pieces, list(self.labels)))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _plan(self, program: LoadedProgram, schema: Any) -> Plan:
        return make_plan(
            program, program.method(self.method), schema, columns=self.columns, keep=self.keep,
            batch_size=self.batch_size, labels=bool(self.labels),
        )  # fmt: skip

    def _clones(self) -> _Clones:
        what = _Load((self.program, *self.data), self.engine, self.threads)
        with _lock:
            found = _loaded.get(what)
            if found is None:
                found = _loaded[what] = _Clones(what)
            return found


def _run(method: Method, plan: Plan, batch: Any, first: int) -> list[list[Any]]:
    """For each output what its :meth:`Result.rows` gave, call by call."""
    inputs = [None if f is None else f.read(batch.column(f.column), first) for f in plan.feeds]
    pieces: list[list[Any]] = [[] for _ in plan.results]
    for part in runs([rows for rows in inputs if rows is not None], plan.rows):
        asked = part.stop - part.start
        given = plan.rows if plan.exact else asked
        arguments = []
        for position, (rows, feed, spec) in enumerate(
            zip(inputs, plan.feeds, method.inputs, strict=True)
        ):
            if feed is None or rows is None:
                arguments.append(spec.value)  # type: ignore[union-attr]
                continue
            value = rows[part.start]
            if isinstance(spec, TensorSpec):
                if feed.batched:
                    last = rows[part.stop - 1]
                    value = np.stack([*rows[part], *[last] * (given - asked)])
                elif position in method.written:
                    value = np.array(value)
            arguments.append(value)
        try:
            found = method.run(arguments)
        except InputError as error:  # of a form that a file cannot say: a fixed second dimension
            rows_of = f"row {first + part.start}"
            if asked > 1:
                rows_of = f"rows {first + part.start} to {first + part.stop - 1}"
            raise InputError(f"{rows_of}: {error}") from error
        for result, kept, value in zip(plan.results, pieces, found, strict=True):
            kept.append(result.rows(value, asked, given))
    return pieces


def _portable(source: Source) -> Source:
    if isinstance(source, (str, os.PathLike)):
        return os.path.abspath(source)
    return bytes(source)

"""One Parquet file to another on this machine: ``penstock run --batch``."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.batch.parts import GROUP_BYTES, Parts, fingerprint
from penstock.batch.plan import Plan
from penstock.batch.scorer import Scorer
from penstock.errors import InputError, shorten
from penstock.files import readable
from penstock.runtime.engines.threads import MAX_THREADS, default_threads

#: How much of the input is read at a time, about; each worker has two such chunks.
CHUNK_BYTES = 8 << 20
MAX_CHUNK_ROWS = 256
#: A part is written after so many seconds, which is how much work a killed run loses.
PART_SECONDS = 10.0
#: Told how many rows are done, of how many.
Progress = Callable[[int, int], None]


def score_file(
    scorer: Scorer, source: str | os.PathLike[str], target: str | os.PathLike[str], *,
    workers: int | None = None, progress: Progress = lambda done, total: None,
) -> int:  # fmt: skip
    """The answers to the rows of the Parquet file ``source``, in the same order, as the Parquet
    file ``target``. Returns the number of rows.

    Memory does not grow with the number of rows. ``target`` appears when all is done. Until then a
    folder beside it, ``target.parts``, has what is done: the same call goes on there after this
    one was killed.

    Args:
        scorer: what computes the answers.
        source: the path of a Parquet file.
        target: the path of the file to write.
        workers: how many threads compute, on clones of the program; by default one for each CPU
            that the process may use.
        progress: is told how many rows are done (those of an earlier run too), of how many.

    Raises:
        InputError: ``source`` is no Parquet file that can be read; a column or a row does not fit
            (the row is named); ``target`` is there already, cannot be written, or another run or
            the folder of another one is in the way.
        InvalidProgramError, UnsupportedError, BackendUnavailableError: see :func:`penstock.load`.
    """
    if workers is not None and not 1 <= workers <= MAX_THREADS:
        raise InputError(f"the number of workers is {workers}; give one from 1 to {MAX_THREADS}")
    file = _open(source)
    schema = file.schema_arrow
    about = {
        "source": fingerprint(source),
        "files": [fingerprint(f) if isinstance(f, (str, os.PathLike)) else len(f)
                  for f in (scorer.program, *scorer.data)],
        "options": {k: v for k, v in asdict(scorer).items() if k not in ("program", "data")},
    }  # fmt: skip
    plan = scorer.plan(schema)
    total: int = file.metadata.num_rows
    with Parts(Path(target), about, plan.schema(schema)) as parts:
        progress(parts.done, total)
        size = _chunk_rows(file, plan)
        chunks = _chunks(file, parts.done, size, source)
        batches: list[Any] = []
        begin = time.monotonic()
        for answers in _in_order(scorer, chunks, workers or default_threads()):
            batches.append(answers)
            late = time.monotonic() - begin >= PART_SECONDS
            if late or sum(batch.nbytes for batch in batches) >= GROUP_BYTES:
                parts.add(batches)
                batches, begin = [], time.monotonic()
            progress(parts.done + sum(map(len, batches)), total)
        if batches:
            parts.add(batches)
        if parts.done != total:
            raise InputError(f"{os.fspath(source)} has {parts.done} rows, and says {total}")
        parts.finish()
    return total


def _open(source: str | os.PathLike[str]) -> Any:
    try:
        # Pages are read one after the other, so that the size of row groups does not matter.
        return pq.ParquetFile(
            readable(source), pre_buffer=False, buffer_size=1 << 20, memory_map=False
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(source, error) from None


def _unreadable(source: str | os.PathLike[str], error: Exception) -> InputError:
    reason = shorten(str(error).partition("\n")[0], 300)
    return InputError(f"{os.fspath(source)} is no Parquet file that can be read: {reason}")


def _chunk_rows(file: Any, plan: Plan) -> int:
    """Rows of a chunk, whole calls: as many as take :data:`CHUNK_BYTES` in the file, and as many
    as do so in memory, where what was packed well is larger, and answers may be."""
    metadata = file.metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    row: int = sum(group.total_byte_size for group in groups) // max(1, metadata.num_rows)
    rows = min(MAX_CHUNK_ROWS, CHUNK_BYTES // max(1, row, plan.row_bytes))
    return plan.rows * max(1, rows // plan.rows)


def _chunks(
    file: Any, done: int, size: int, source: str | os.PathLike[str]
) -> Iterator[tuple[int, Any]]:
    """Record batches after the first ``done`` rows, and the number of each one's first row."""
    metadata, row, group = file.metadata, 0, 0
    while group < metadata.num_row_groups and row + metadata.row_group(group).num_rows <= done:
        row += metadata.row_group(group).num_rows
        group += 1
    groups = list(range(group, metadata.num_row_groups))
    try:
        for batch in file.iter_batches(size, row_groups=groups, use_threads=False):
            if row + len(batch) > done:
                skipped = max(0, done - row)
                yield row + skipped, batch.slice(skipped)
            row += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(source, error) from None


def _in_order(
    scorer: Scorer, chunks: Iterator[tuple[int, Any]], workers: int
) -> Iterator[Any]:  # fmt: skip
    """The answers to chunks in their order; a few are computed ahead."""
    waiting: deque[Future[Any]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="penstock")
    try:
        for first, batch in chunks:
            waiting.append(executor.submit(scorer.answers, batch, first))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)

"""``penstock run --batch``: Parquet in, Parquet out."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

from penstock.cli.console import Stage, Stages
from penstock.cli.run_file import split_names
from penstock.errors import InputError
from penstock.labels import read_labels
from penstock.text import printable


def run_batch(
    program: str, source: str, target: str | None, *, columns: str | None, keep: str | None,
    labels: str | None, data_path: str | None, engine: str, method: str | None,
    batch_size: int | None, threads: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run every row of ``source`` and print how many there were, and how many a second.

    Raises what :func:`penstock.batch.score_file` raises.
    """
    from penstock.batch import Scorer, score_file

    if not target:
        raise InputError("where do the answers go? Give --output NAME.parquet")
    scorer = Scorer(
        program,
        columns=None if columns is None else tuple(split_names(columns)),
        keep=None if keep is None else tuple(split_names(keep)),
        labels=() if labels is None else tuple(read_labels(labels)),
        data=tuple(split_names(data_path)),
        engine=engine,
        method=method,
        batch_size=batch_size,
    )
    begin = time.perf_counter()
    with _Rows(Stages(quiet=quiet or as_json)) as progress:
        rows = score_file(scorer, source, target, workers=threads, progress=progress)
    seconds = time.perf_counter() - begin
    if as_json:
        report = {"rows": rows, "rows_before": progress.before, "seconds": round(seconds, 3)}
        print(json.dumps({**report, "files": [target]}, indent=2))
    elif not quiet:
        print(f"written: {printable(str(target))}")


class _Rows(ExitStack):
    """A stage on the screen, which begins when it is first told how many rows are done."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self._stages = stages
        self._stage: Stage | None = None
        self._begin, self._done = 0.0, 0
        #: how many rows an earlier run had done
        self.before = 0

    def __call__(self, done: int, total: int) -> None:
        if self._stage is None:
            self._begin, self.before, self._done = time.perf_counter(), done, done
            self._stage = self.enter_context(self._stages.stage("run", total=total, done=done))
        self._stage.advance(done - self._done)
        self._done = done
        rate = (done - self.before) / max(1e-9, time.perf_counter() - self._begin)
        earlier = f", {self.before:,} before" if self.before else ""
        self._stage.note(f"{done - self.before:,} rows{earlier}, {rate:,.1f} a second")

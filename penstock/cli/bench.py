"""``penstock bench``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from penstock.cli.completion import several
from penstock.cli.console import Stages
from penstock.cli.options import Charts, DataPath, Json, ModelWeights, QuietTable, SampleInputs
from penstock.cli.output import writable
from penstock.cli.safe_console import SafeConsole
from penstock.cli.tables import print_table
from penstock.errors import InputError
from penstock.pages import write_page
from penstock.pages.document import plain
from penstock.runtime.engines.threads import MAX_THREADS
from penstock.tools.bench.peers import PEERS
from penstock.tools.bench.report import BenchReport, Row

_HELP = """Measure .pte files, and the other runtimes beside them, by turns.

Each runtime has a process of its own. All take turns until the time is up; the ratio is the time
over that of the first row, with the quartiles of the turns, and holds on a busy machine too.

Example: penstock bench mv2_xnnpack_q8.pte --model mv2 --against executorch,onnxruntime
"""


def bench_command(
    targets: Annotated[
        list[str],
        typer.Argument(
            help=".pte files. A model of the zoo or package.module:callable is compiled first."
        ),
    ],
    against: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(
            autocompletion=several(*PEERS),
            help="The peers, separated by commas: executorch (runs the same file), onnxruntime, "
            "openvino, torch (eager).",
        ),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What the files were compiled from, a model of the zoo or "
            "package.module:callable: for peers that need the model, and to tell how near each "
            "answer is to eager PyTorch's."
        ),
    ] = None,
    weights: ModelWeights = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", "-q", help="Of models that are compiled first: in 8 bits.")
    ] = False,
    threads: Annotated[
        str, typer.Option("--threads", "-t", help="Numbers of threads, separated by commas.")
    ] = "1",
    engine: Annotated[
        str, typer.Option(help="Penstock's engines, separated by commas: auto, xnnpack, native.")
    ] = "auto",
    inputs: SampleInputs = None,
    data_path: DataPath = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long the turns of one launch take, in all.")
    ] = 5.0,
    launches: Annotated[
        int, typer.Option(min=1, help="How often each runtime is started anew.")
    ] = 2,
    html: Charts = None,
    quiet: QuietTable = False,
    as_json: Json = False,
) -> None:
    """Measure .pte files, and other runtimes beside them, by turns."""
    from penstock.cli.bench_targets import BenchRequest, contestants
    from penstock.cli.run_file import split_names
    from penstock.tools.bench.peers import parse_peers
    from penstock.tools.bench.run import bench

    counts = _counts(threads)
    if html is not None:
        writable(html, "--html")
    stages = Stages(quiet=quiet or as_json)
    notices: list[str] = []
    request = BenchRequest(
        targets=targets,
        peers=parse_peers(against),
        model=model,
        weights=weights,
        quantize=quantize,
        engines=split_names(engine),
        inputs=split_names(inputs),
        data=split_names(data_path),
    )
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        found = contestants(request, Path(folder), stages, notices.append)
        with _measuring(stages.console, len(counts) * launches * seconds) as progress:
            report = bench(
                found, threads=counts, seconds=seconds, launches=launches, progress=progress
            )
    plain_report = report.as_dict() | {"notices": notices}
    if html is not None:
        write_page(
            html, "bench", f"Bench of {', '.join(Path(t).name for t in targets)}", plain_report
        )
    if as_json:
        print(json.dumps(plain(plain_report), indent=2))
    else:
        show(report, notices)
    if all(row.error is not None for row in report.rows):
        raise InputError(f"nothing could be measured: {report.rows[0].error}")


bench_command.__doc__ = _HELP


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= MAX_THREADS for count in counts):
        raise InputError(
            f"--threads is {text!r}; give numbers from 1 to {MAX_THREADS}, such as 1,2"
        )
    return list(dict.fromkeys(counts))


class _Shown:
    """Progress of a bench on a bar of seconds."""

    def __init__(self, bar: Bar, total: float) -> None:
        self._bar = bar
        self._task = bar.add_task("start", total=total)

    def doing(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def measured(self, seconds: float) -> None:
        self._bar.advance(self._task, seconds)


@contextmanager
def _measuring(console: Console, total: float) -> Iterator[_Shown]:
    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or console.quiet,
    )
    with bar:
        yield _Shown(bar, total)


def show(report: BenchReport, notices: Sequence[str]) -> None:
    """Prints the tables, one for each number of threads, and what to mind."""
    console = SafeConsole(highlight=False)
    if not console.is_terminal:
        console.width = 200  # what reads it has no edge
    for threads in dict.fromkeys(row.threads for row in report.rows):
        print_table(console, _table(report, threads), ("file",))
    console.print(
        "ms: the best run; ratio: time over the first row's, median of the turns; MB: what loading "
        "and a run add to the memory",
        style="dim",
    )
    failures = [
        f"{row.title}, {row.file} fails: {' '.join(row.error.split())}"
        for row in report.rows
        if row.error is not None
    ]
    for line in (*dict.fromkeys(failures), *notices, *report.warnings):
        console.print(f"note: {line}", markup=False, soft_wrap=True)


def _table(report: BenchReport, threads: int) -> Table:
    rows = [row for row in report.rows if row.threads == threads]
    judged = any(row.sqnr_db is not None for row in rows)
    table = Table(
        title=f"{threads} thread{'s' if threads > 1 else ''}, {report.machine['processor']}",
        box=None,
        pad_edge=False,
        title_justify="left",
    )
    table.add_column("runtime", no_wrap=True)
    table.add_column("file", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("ratio (quartiles)", justify="right", no_wrap=True)
    for name in ("load, ms", "MB", "SQNR, dB") if judged else ("load, ms", "MB"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*_cells(row, judged))
    return table


_BITS = {"float": "fp32", "static int8": "int8", "dynamic int8": "int8 dyn."}


def _cells(row: Row, judged: bool) -> list[Any]:
    from rich.text import Text

    names = [Text(row.title), Text(row.file), Text(_BITS.get(row.precision, row.precision))]
    if row.ratio is None or row.best_ms is None:
        return [*names, Text("fails")]  # why stands below: a column would squeeze the others
    ratio = row.ratio
    cells = [
        f"{row.best_ms:.3g}",
        f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        _number(row.load_ms, ".0f"),
        _number(row.growth_mb, ".0f"),
    ]
    return [*names, *cells, *([_number(row.sqnr_db, ".1f")] if judged else [])]


def _number(value: float | None, form: str) -> str:
    if value == float("inf"):
        return "equal"
    return "" if value is None else f"{value:{form}}"

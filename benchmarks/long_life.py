"""``python -m benchmarks.long_life``: calls by the million, and programs loaded and let go by the
ten thousand. Writes its table into docs/reliability.md and its plot beside it.

Each job has a process of its own, and its samples are kept in ``build/long_life``: a job that is
done is not done again, unless the folder is removed. ``--page`` writes the page from what is there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import ROOT
from benchmarks.sections import table, write_section
from penstock.cli.feeds import ones
from penstock.files import write_file
from penstock.runtime.program import LoadedProgram, load

FOLDER = ROOT / "build" / "long_life"
PICTURE = ROOT / "docs" / "pictures" / "long_life.png"
SAMPLES = 200
#: What is read after so many of the samples is what the rest is compared with.
WARM = SAMPLES // 50


@dataclass(frozen=True)
class Job:
    model: str
    precision: str
    kind: str
    count: int

    @property
    def name(self) -> str:
        return f"{self.model}_{self.precision}_{self.kind}"

    @property
    def program(self) -> Path:
        return FOLDER / f"{self.model}_{self.precision}.pte"

    @property
    def samples(self) -> Path:
        return FOLDER / f"{self.name}.json"

    @property
    def words(self) -> str:
        model = "a small network" if self.model == "small" else "MobileNetV2"
        what = "calls" if self.kind == "calls" else "loads, each called once, and cloned"
        return f"{model}, {'int8' if self.precision == 'q8' else 'fp32'}: {self.count:,} {what}"


JOBS = (
    Job("small", "fp32", "calls", 1_000_000),
    Job("small", "fp32", "loads", 10_000),
    Job("mv2", "q8", "calls", 100_000),
    Job("mv2", "q8", "loads", 10_000),
)


def make(job: Job) -> None:
    """The program of ``job``, if it is not there yet."""
    if job.program.exists():
        return
    if job.model == "mv2":
        from benchmarks.flows import run_flow

        run_flow("ours", job.model, job.precision, str(job.program))
        return
    import torch

    import penstock

    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(8 * 14 * 14, 10))
    penstock.lower(model, (torch.randn(1, 3, 16, 16),)).save(job.program)


def resources() -> list[int]:
    """Resident bytes, threads, open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads = len(os.listdir("/proc/self/task"))
    return [pages * os.sysconf("SC_PAGE_SIZE"), threads, len(os.listdir("/proc/self/fd"))]


def work(job: Job) -> list[list[int]]:
    """Does ``job`` in this process; the resources after each of :data:`SAMPLES` parts of it."""
    first = load(job.program, threads=2)
    inputs = ones(first.method().inputs)
    expected = first(*inputs)[0].copy()

    def answer(program: LoadedProgram) -> None:
        if not np.array_equal(program(*inputs)[0], expected):
            raise RuntimeError("another answer than at first")

    def reload() -> None:
        program = load(job.program, threads=2)
        answer(program)
        answer(program.clone(threads=1))

    once: Callable[[], None] = (lambda: answer(first)) if job.kind == "calls" else reload
    samples = []
    for part in range(SAMPLES):
        for _ in range(job.count * (part + 1) // SAMPLES - job.count * part // SAMPLES):
            once()
        samples.append(resources())
    return samples


def run(job: Job) -> None:
    """Has a process do ``job``, unless its samples are there."""
    if job.samples.exists():
        return
    make(job)
    print(job.words, flush=True)
    command = [sys.executable, "-m", "benchmarks.long_life", "--job", job.name]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    write_file(job.samples, lambda file: file.write(done.stdout))


def page() -> None:
    """The table and the plot of the jobs that are done."""
    found = {job: json.loads(job.samples.read_text()) for job in JOBS if job.samples.exists()}
    rows = []
    for job, samples in found.items():
        rss = [sample[0] / 1e6 for sample in samples]
        warm, last = samples[WARM - 1], samples[-1]
        rows.append(
            [
                job.words,
                f"{rss[WARM - 1]:.1f}",
                f"{rss[-1]:.1f}",
                f"{max(rss[WARM - 1 :]):.1f}",
                f"{warm[1]} → {last[1]}",
                f"{warm[2]} → {last[2]}",
            ]
        )
    head = ["", f"MB after {WARM / SAMPLES:.0%}", "at the end", "most", "threads", "open files"]
    write_section("reliability.md", "long life", table(head, rows))
    plot(found)


def plot(found: dict[Job, list[list[int]]]) -> None:
    """Resident memory from the first sample to the last, a line for each job."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), dpi=100)
    for job, samples in found.items():
        done = [100 * (index + 1) / len(samples) for index in range(len(samples))]
        axes.plot(done, [sample[0] / 1e6 for sample in samples], label=job.words, linewidth=1.5)
    axes.set(xlabel="done, %", ylabel="resident, MB", ylim=(0, None), xlim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    figure.tight_layout()
    write_file(PICTURE, lambda file: figure.savefig(file, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=[job.name for job in JOBS], help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help="write the page, measure nothing")
    arguments = parser.parse_args()
    if arguments.job is not None:
        (job,) = (job for job in JOBS if job.name == arguments.job)
        print(json.dumps(work(job)))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for job in () if arguments.page else JOBS:
        run(job)
    page()


if __name__ == "__main__":
    main()

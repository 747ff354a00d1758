"""``python -m benchmarks.scale``: images a second through Parquet files, with one worker and with
two, on this machine alone and in local clusters of Ray, Dask and Spark where they are installed.
Writes its tables, and what 100 machines would do by arithmetic, into docs/scale.md.

Needs MobileNetV2's files that ``make bench`` leaves in ``build/measured``.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import ROOT
from benchmarks.machine import describe
from benchmarks.sections import table, write_section
from penstock.batch import Scorer, score_file
from penstock.pictures import from_image
from penstock.runtime.program import load
from penstock.runtime.specs import TensorSpec
from penstock.zoo.images import crops

FOLDER = ROOT / "build" / "measured"
PRECISIONS = {"fp32": "fp32", "q8": "int8"}
WORKERS = (1, 2)
#: Libraries by the package that shows whether they are there.
LIBRARIES = {"ray": "Ray Data", "distributed": "Dask", "pyspark": "Spark"}
NAMES = {"ray": "ray", "distributed": "dask", "pyspark": "spark"}
DISTINCT, FILES, GROUP = 64, 8, 50
MACHINES, JOB = 100, 1_000_000_000
READ, PREPARED = "read from the file", "decoded, resized, normalised (Pillow, NumPy)"


def program(precision: str) -> Path:
    return FOLDER / f"mv2_{precision}_ours.pte"


def images() -> list[bytes]:
    """JPEG files of 400 x 400, different ones."""
    from PIL import Image

    found = []
    for picture in crops(400, DISTINCT):
        with io.BytesIO() as file:
            Image.fromarray(picture).save(file, "jpeg", quality=90)
            found.append(file.getvalue())
    return found


def write_sources(folder: Path, count: int) -> tuple[Path, Path]:
    """One file of ``count`` images, and a folder of files with the same ones."""
    different = images()
    rows = pa.table({
        "id": range(count), "image": [different[i % DISTINCT] for i in range(count)],
    })  # fmt: skip
    options: dict[str, Any] = {"row_group_size": GROUP, "use_dictionary": False}
    pq.write_table(rows, folder / "images.parquet", **options)
    parts = folder / "images"
    parts.mkdir()
    size = -(-count // FILES)
    for index in range(FILES):
        pq.write_table(rows.slice(index * size, size), parts / f"{index}.parquet", **options)
    return folder / "images.parquet", parts


def alone(source: Path, precision: str, workers: int) -> float:
    """Images a second of ``penstock run --batch``, the import of libraries apart."""
    command = [sys.executable, "-m", "penstock", "run", str(program(precision)), "--json"]
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        done = subprocess.run(
            [*command, "--batch", str(source), "--output", f"{folder}/out.parquet",
             "--threads", str(workers), "--keep", "id"],
            cwd=ROOT, stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    rate: float = found["rows"] / found["seconds"]
    return rate


def clustered(package: str, source: Path, precision: str, workers: int) -> float:
    count: int = sum(pq.read_metadata(path).num_rows for path in source.iterdir())
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        target = Path(folder) / "out"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scale_clusters", NAMES[package], str(source),
             str(target), str(program(precision)), str(workers)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
        )  # fmt: skip
        written = sum(pq.read_metadata(path).num_rows for path in target.glob("*.parquet"))
    if written != count:
        raise RuntimeError(f"{package} wrote {written} of {count} rows")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("seconds "))
    return count / float(line.split()[1])


def cpu_ms(work: Callable[[Any], Any], items: list[Any]) -> float:
    """Milliseconds of a CPU that ``work`` takes for one of ``items``: the median."""
    times = []
    for item in items:
        start = time.thread_time()
        work(item)
        times.append(time.thread_time() - start)
    return sorted(times)[len(times) // 2] * 1e3


def costs(source: Path, count: int) -> dict[str, float]:
    """What one image takes of a CPU, in ms, by what is done with it."""

    def read(path: Path) -> Any:
        return pq.read_table(path, columns=["image"], use_threads=False)["image"]

    files = read(source).slice(0, DISTINCT).to_pylist()
    found = {READ: cpu_ms(read, [source] * 3) / count}
    for precision, words in PRECISIONS.items():
        method = load(program(precision), threads=1).method()
        spec = method.inputs[0]
        assert isinstance(spec, TensorSpec)
        prepare = partial(from_image, spec=spec)
        found[PREPARED] = cpu_ms(prepare, files * 2)
        found[f"MobileNetV2, {words}"] = cpu_ms(method.run, [[prepare(one)] for one in files * 2])
    return found


def page(rates: dict[tuple[str, str, int], float], each: dict[str, float], size: float) -> str:
    machine = describe()
    names = {"": "`penstock run --batch`", **LIBRARIES}
    rows = [
        [f"{names[way]}, {words}", *(f"{rates[way, precision, n]:.0f}" for n in WORKERS)]
        for way in names
        for precision, words in PRECISIONS.items()
        if (way, precision, 1) in rates
    ]
    head = ["images a second", *(f"{n} worker{'s' if n > 1 else ''}" for n in WORKERS)]
    most = rates["", "q8", WORKERS[-1]]
    together = MACHINES * most
    whole = each[READ] + each[PREPARED] + each["MobileNetV2, int8"]
    storage = (
        f"They would read {together * size / 1e9:.2f} GB a second from storage,"
        f" {most * size / 1e6:.1f} MB each, and write {together * 4e-6:.2f} GB a second of numbers,"
        " 1000 floats an image."
    )
    return "\n".join([
        f"JPEG files of {size / 1e3:.0f} kB (400 x 400), MobileNetV2, on {machine['processor']}"
        f" ({machine['features']}), {machine['date']}; a job includes the start of its workers,"
        " not of a cluster:\n",
        table(head, rows),
        "What one image takes of one CPU:\n",
        table(["", "ms"], [[name, f"{ms:.2f}"] for name, ms in each.items()]),
        f"So the CPU is what limits it: in int8 an image takes {whole:.1f} ms of one,"
        f" {(whole - each['MobileNetV2, int8']) / whole:.0%} of that for the picture, and"
        f" {WORKERS[-1]} CPUs that did nothing else would do {1e3 * WORKERS[-1] / whole:.0f} images"
        f" a second ({most:.0f} measured).\n",
        "Rows do not know of each other, so machines add up until something shared is full:"
        f" {MACHINES} machines like this one would do {MACHINES} x {most:.0f} = {together:,.0f}"
        f" images a second in int8, a thousand million images in {JOB / together / 3600:.1f} hours."
        f" {storage} The program travels once to each worker"
        f" ({program('q8').stat().st_size / 1e6:.1f} MB).\n",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    count = parser.parse_args().images
    for precision in PRECISIONS:
        if not program(precision).exists():
            raise SystemExit(f"there is no {program(precision)}: make bench")
    ways = ["", *(package for package in LIBRARIES if importlib.util.find_spec(package))]
    if shutil.which("java") is None and "pyspark" in ways:
        ways.remove("pyspark")
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        single, parts = write_sources(Path(folder), count)
        score_file(Scorer(program("q8")), single, Path(folder) / "warm.parquet")
        for way in ways:
            for precision in PRECISIONS:
                for workers in WORKERS:
                    rate = (
                        clustered(way, parts, precision, workers) if way
                        else alone(single, precision, workers)
                    )  # fmt: skip
                    print(way or "alone", precision, workers, f"{rate:.1f} images/s", flush=True)
                    rates[way, precision, workers] = rate
        each = costs(single, count)
        size = sum(map(len, images())) / DISTINCT
    write_section("scale.md", "scale", page(rates, each, size))


if __name__ == "__main__":
    main()

"""``python -m benchmarks.arm_instructions``: the instructions that our own kernels and XNNPACK's
need for one node on aarch64.

An emulator says nothing about time, but counts exactly: a plugin of QEMU's (``tests/arm/count.c``)
counts what runs, by kind, in a call of each engine. From the counts follow the cycles that a core
as wide as Cortex-A76 (Arm's "Cortex-A76 Software Optimization Guide": four instructions a cycle,
two vector operations, two loads or stores) needs at least, where nothing waits for anything else.

``make test-arm`` makes the arm64 root and installs Penstock there; Debian's ``qemu-user`` is the
emulator that takes plugins. Writes a table of ``docs/platforms.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "platforms.md"
DEBIAN = Path(os.environ.get("PENSTOCK_ARM_ROOT", "/var/tmp/penstock-arm64")) / "root"
KEPT = ROOT / "build" / "arm"
#: Of the emulator, one for each instruction set: the names that it has in ``PENSTOCK_ISA``.
PROCESSORS = {"neon": "cortex-a72", "dotprod": "cortex-a76", "i8mm": "max,sme=off,sve=off"}
#: Sides of images, and numbers of rows, of more than this are cut: the emulator is slow, and what a
#: multiply-add needs hardly depends on it.
SIDE = 28
MOST_OPERATIONS = 3e8
#: What the plugin takes for a mark: ``MARK`` there.
MARK = 7701
#: A core's width: instructions, vector operations, accesses to memory a cycle.
ISSUE, VECTORS, ACCESSES = 4, 2, 2


@dataclass(frozen=True)
class Count:
    """Instructions of one call: all, those of the vector unit, accesses to memory, and of the
    products that kernels are made of."""

    all: int
    vector: int
    memory: int
    multiply: int

    @property
    def cycles(self) -> float:
        """The least that a core of Cortex-A76's width needs."""
        return max(self.all / ISSUE, self.vector / VECTORS, self.memory / ACCESSES)


@dataclass(frozen=True)
class Row:
    """A node on one processor. ``taken``: ``engine="auto"`` gives it to our kernel."""

    isa: str
    name: str
    operations: int
    ours: Count
    theirs: Count
    taken: bool


def mark() -> None:
    """The plugin writes its counts."""
    with contextlib.suppress(OSError):
        os.sched_get_priority_max(MARK)


def inside(isa: str, counts: Path, only: str) -> Iterator[Row]:
    """The rows of one instruction set. Runs in the emulator, with the plugin."""
    from benchmarks.kernel_shapes import SHAPES
    from benchmarks.kernels import runner
    from penstock.runtime.engines.native.engine import NativeEngine
    from penstock.runtime.engines.native.library import open_library, shared_library
    from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

    library = open_library(shared_library().path, isa)
    ours, auto = NativeEngine(everything=True, library=library), NativeEngine(library=library)
    theirs = XnnpackEngine()

    def counted(engine: NativeEngine | XnnpackEngine, shape: Any) -> Count:
        run = runner(engine, shape)
        counts.write_text("")
        mark()
        mark()
        run()
        mark()
        empty, before, after = ([int(n) for n in line.split()] for line in counts.open())
        numbers = [c - b - (b - a) for a, b, c in zip(empty, before, after, strict=True)]
        return Count(*numbers)

    # Of those that are then alike one will do.
    for shape in dict.fromkeys(replace(s, size=min(s.size, SIDE)) for s in SHAPES):
        name = f"{shape.name}, {shape.type}"
        graph = shape.graph()
        node = graph.nodes[-1]
        if only not in name or shape.operations > MOST_OPERATIONS or "int4" in name:
            continue  # int4 has no kernel for vectors
        if shape.type == "fp32" and isa != "neon":
            continue  # it has no other there
        if ours.reason_against(graph, node) is not None:
            continue
        taken = auto.reason_against(graph, node) is None
        found = Row(
            isa, name, shape.operations, counted(ours, shape), counted(theirs, shape), taken
        )
        yield found


def row_of(found: dict[str, Any]) -> Row:
    """A row from what ``asdict`` made of it."""
    return Row(**{**found, "ours": Count(**found["ours"]), "theirs": Count(**found["theirs"])})


def kept(isa: str) -> list[Row]:
    """The rows of an instruction set that were counted last, in this run or one before."""
    path = KEPT / f"instructions-{isa}.json"
    return [row_of(found) for found in json.loads(path.read_text())] if path.is_file() else []


def emulated(isa: str, plugin: Path, counts: Path, packages: str, only: str) -> list[Row]:
    """The rows of one instruction set."""
    command = (
        "qemu-aarch64", "-L", str(DEBIAN), "-plugin", f"{plugin},out={counts}",
        "-E", f"PYTHONHOME={DEBIAN}/usr", "-E", f"PYTHONPATH={packages}:{ROOT}",
        str(DEBIAN / "usr/bin/python3"), "-m", "benchmarks.arm_instructions",
        "--inside", isa, str(counts), only,
    )  # fmt: skip
    environment = {**os.environ, "QEMU_CPU": PROCESSORS[isa], "OMP_NUM_THREADS": "1"}
    rows = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=DEBIAN / "work"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            rows.append(row_of(json.loads(line)))
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {process.returncode}")
    return rows


def table(rows: Sequence[Row]) -> str:
    """Instructions for 100 multiply-adds, and how many fewer cycles ours need at least."""
    lines = [
        "| instruction set, node | XNNPACK | ours | fewer instructions | fewer cycles | runs on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ours, theirs, each = row.ours, row.theirs, 200 / row.operations
        lines.append(
            f"| {row.isa}: {row.name} | {theirs.all * each:.1f} | {ours.all * each:.1f} |"
            f" {theirs.all / ours.all:.2f} x | {theirs.cycles / ours.cycles:.2f} x |"
            f" {'our kernel' if row.taken else 'XNNPACK'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Count, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="shapes whose names have this; writes no page")
    parser.add_argument("--isa", nargs="*", choices=PROCESSORS, default=tuple(PROCESSORS))
    parser.add_argument("--packages", default="/opt/penstock", help="PYTHONPATH in the root")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        isa, counts, only = options.inside
        for row in inside(isa, Path(counts), only):
            print(json.dumps(asdict(row)), flush=True)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plugin, counts = Path(folder) / "libcount.so", Path(folder) / "counts"
        subprocess.run(
            ["cc", "-O2", "-fPIC", "-shared", str(ROOT / "tests" / "arm" / "count.c"), "-o",
             str(plugin)], check=True,
        )  # fmt: skip
        for isa in options.isa:
            found = emulated(isa, plugin, counts, options.packages, options.only)
            if options.only:
                rows += found
            else:
                KEPT.mkdir(parents=True, exist_ok=True)
                text = json.dumps([asdict(row) for row in found])
                (KEPT / f"instructions-{isa}.json").write_text(text)
    if not options.only:
        rows = [row for isa in PROCESSORS for row in kept(isa)]
    print(table(rows))
    if not options.only:
        form = r"(<!-- instructions -->\n)(?:.*?\n)??(<!-- end -->)"
        page = re.sub(form, lambda m: f"{m[1]}{table(rows)}\n{m[2]}", PAGE.read_text(), flags=re.S)
        PAGE.write_text(page)


if __name__ == "__main__":
    main()

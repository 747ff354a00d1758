"""``make fuzz``: mutated programs, loaded and run; and other files that Penstock reads.

    python -m fuzz [--runtime auto|xnnpack|native|executorch] [--files 1000000] [--seconds N]
    python -m fuzz --runtime graphs                 # sound graphs: our kernels beside XNNPACK
    python -m fuzz --runtime checkpoints|inputs     # GGUF files and folders; arrays, pictures ...
    python -m fuzz --show 123456     # writes the file of that case, and tries it here

Goes on where it stopped; what was found stands in ``build/fuzz/<runtime>.json``, and the files at
which a process died or hung lie beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fuzz.checkpoints import checkpoint_tries
from fuzz.checkpoints import make as make_checkpoints
from fuzz.corpus import ROOT, corpus, make
from fuzz.drive import PROGRAMS, Tally, digest, drive
from fuzz.graphs import graph_tries
from fuzz.inputs import input_tries
from fuzz.worker import case, penstock_run

FOLDER = ROOT / "build" / "fuzz"
RUNTIMES = ("auto", "xnnpack", "native", "executorch")
#: Graphs, in place of the files that hold them.
GRAPHS = "graphs"
#: What else is read, by the module that mutates and reads it.
OTHERS = ("checkpoints", "inputs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--runtime", choices=(*RUNTIMES, GRAPHS, *OTHERS), default="auto")
    parser.add_argument("--files", type=int, default=1_000_000, help="cases in all")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--show", type=int, metavar="CASE")
    asked = parser.parse_args()
    if asked.runtime in OTHERS:
        return others(asked)
    files = FOLDER / "corpus"
    if not files.exists():
        print("compiling the files to start from ...", flush=True)
        part = FOLDER / "corpus.part"
        make(part)
        part.rename(files)
    seeds = corpus(files)
    if asked.show is not None:
        if asked.runtime == GRAPHS:
            print(graph_tries(files)(asked.show))
            return 0
        return show(asked.show, asked.runtime, FOLDER)
    code = ("graphs.py",) if asked.runtime == GRAPHS else PROGRAMS
    return run(asked, files, digest(seeds, code))


def others(asked: argparse.Namespace) -> int:
    files = FOLDER / "checkpoints"
    if asked.runtime == "checkpoints" and not files.exists():
        part = FOLDER / "checkpoints.part"
        make_checkpoints(part)
        part.rename(files)
    if asked.show is not None:
        tries = checkpoint_tries(files) if asked.runtime == "checkpoints" else input_tries()
        print(tries(asked.show))
        return 0
    return run(asked, files, digest([], ("checkpoints.py", "inputs.py")))


def run(asked: argparse.Namespace, files: Path, name: str) -> int:
    """Tries the cases, goes on where a tally of this ``name`` stopped, and prints it."""
    path = FOLDER / f"{asked.runtime}.json"
    tally = Tally.load(path) if path.exists() else Tally(name)
    if tally.corpus != name:
        print("the files or the mutations are others than before: beginning anew")
        tally = Tally(name)
    start, before = time.monotonic(), tally.tried

    def report(now: Tally) -> None:
        now.save(path)
        rate = (now.tried - before) / (time.monotonic() - start)
        print(
            f"\r{now.tried:,} files, {len(now.crashes)} crashes, {len(now.hangs)} hangs, "
            f"{len(now.failures)} other failures; {rate:.0f} a second",
            end="", flush=True,
        )  # fmt: skip

    drive(
        asked.runtime, files, tally,
        until=asked.files, seconds=asked.seconds, workers=asked.workers, report=report,
    )  # fmt: skip
    tally.save(path)
    print()
    for outcome, count in tally.outcomes.most_common():
        print(f"{count:10,}  {outcome}")
    for number, what in (*tally.crashes, *((hang, "hang") for hang in tally.hangs)):
        if asked.runtime in RUNTIMES:
            write(number, path.parent)
        print(f"case {number}: {what if what == 'hang' else f'signal {what}'}")
    for number, error in tally.failures[:20]:
        print(f"case {number}: {error}")
    return 1 if tally.crashes or tally.hangs or tally.failures else 0


def write(number: int, folder: Path) -> Path:
    """The files of a case, to be looked at."""
    _, hostile = case(corpus(FOLDER / "corpus"), number)
    path = folder / f"{number}.pte"
    path.write_bytes(hostile.program)
    if hostile.data_file is not None:
        path.with_suffix(".ptd").write_bytes(hostile.data_file)
    return path


def show(number: int, runtime: str, folder: Path) -> int:
    seed, hostile = case(corpus(FOLDER / "corpus"), number)
    print(f"{write(number, folder)}: {seed.name}, {hostile.what}", flush=True)
    print(penstock_run(runtime)(hostile))
    return 0


if __name__ == "__main__":
    sys.exit(main())

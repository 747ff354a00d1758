"""Runs programs on random inputs of a fixed seed and keeps what they answer, and on the way to it:
``python answers.py FOLDER FILE ...`` writes FOLDER/<stem>.npz for each file. Runs on both machines.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from penstock.tools.compare.taps import ProgramSide
from penstock.tools.samples import random_inputs

#: Engines whose answers are kept, by name.
ENGINES = ("xnnpack", "auto")


def main(folder: Path, files: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        begin = time.monotonic()
        kept: dict[str, np.ndarray] = {}
        for engine in ENGINES:
            side = ProgramSide(file, label=engine, engine=engine, threads=1)
            outputs, taps = side.run(random_inputs(side.program))
            kept |= {f"{engine}|out|{i}": value for i, value in enumerate(outputs)}
            if engine == "xnnpack":
                for i, tap in enumerate(taps):
                    kept[f"tap|{i}|{tap.kind}|{tap.dtype}|{tap.origin.module}"] = tap.array
                kept["quantized"] = np.array(side.quantized)
        np.savez(folder / f"{file.stem}.npz", **kept)
        print(f"{file.name} {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

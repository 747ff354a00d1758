"""Runs programs on the stock runtime; a process of its own: ``python stock_process.py DIRECTORY``.

For each ``NAME.pte`` there, ``NAME.in.pkl`` holds a list of runs, each a flat list of inputs; the
outputs of all runs, on one loaded method, go to ``NAME.out.pkl``, or the error's text does. Each
program has a child process of its own, since a failed check in a kernel ends the process.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main(directory: Path) -> None:
    import executorch.kernels.quantized  # noqa: F401  registers the quantized kernels
    import numpy as np
    import torch
    from executorch.runtime import Runtime

    logging.disable(logging.CRITICAL)
    runtime = Runtime.get()

    def give(value: Any) -> Any:
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    def take(value: Any) -> Any:
        return value.detach().clone().numpy() if isinstance(value, torch.Tensor) else value

    def run(path: Path) -> Any:
        try:
            method = runtime.load_program(path).load_method("forward")
            runs = pickle.loads(path.with_suffix(".in.pkl").read_bytes())
            return [[take(item) for item in method.execute([*map(give, run)])] for run in runs]
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    for path in sorted(directory.glob("*.pte")):
        answer = path.with_suffix(".out.pkl")
        child = os.fork()
        if child == 0:
            answer.write_bytes(pickle.dumps(run(path)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            answer.write_bytes(pickle.dumps("the process ended"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A model of 3 GiB of weights; run by the tests in processes of its own.

    compile FOLDER | run FOLDER ENGINE | stock FOLDER

Prints the largest memory of the process in MiB, and how far the answer is from eager's.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIZE, LAYERS = 16384, 3


def compile_it(folder: Path) -> None:
    import torch

    import penstock

    layers = [torch.nn.Linear(SIZE, SIZE, device="meta") for _ in range(LAYERS)]
    model = torch.nn.Sequential(*layers).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for index, layer in enumerate(layers):  # random numbers everywhere would take minutes
            layer.bias.fill_(0.5 * index)
            layer.weight.zero_()
            some = layer.weight[:, ::257]
            some.copy_(torch.randn(some.shape, generator=generator) * 0.1)
        x = torch.randn(1, SIZE, generator=generator)
        np.savez(folder / "answer.npz", x=x.numpy(), y=model(x).numpy())
    penstock.lower(model, (x,)).save(folder / "large.pte")


def run(folder: Path, engine: str) -> np.ndarray:
    import penstock

    program = penstock.load(folder / "large.pte", engine=engine, threads=1)
    found: np.ndarray = program(np.load(folder / "answer.npz")["x"])[0]
    return found


def stock(folder: Path) -> np.ndarray:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(folder / "large.pte").load_method("forward")
    assert method is not None
    x: Any = np.load(folder / "answer.npz")["x"]
    return np.asarray(method.execute([torch.from_numpy(x)])[0])


if __name__ == "__main__":
    place = Path(sys.argv[2])
    error = 0.0
    if sys.argv[1] == "compile":
        compile_it(place)
    else:
        answer = stock(place) if sys.argv[1] == "stock" else run(place, sys.argv[3])
        wanted = np.load(place / "answer.npz")["y"]
        error = float(np.abs(answer - wanted).max() / np.abs(wanted).max())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"peak_mib": peak, "error": error}))

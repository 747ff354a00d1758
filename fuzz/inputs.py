"""Mutated files of other kinds that commands are given: arrays, pictures, labels, profiles."""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from fuzz.checkpoints import changed_json, damaged
from fuzz.corpus import STOCK
from fuzz.worker import check_message
from penstock.tools.describe.program import ProgramDescription


def honest() -> dict[str, bytes]:
    """Small files by name, made anew each time: always the same."""
    from PIL import Image

    generator = np.random.default_rng(0)
    files = {"labels.txt": "\n".join(["cat", "dog", "chère"] * 9).encode()}
    profile = {"method": "forward", "seconds": 1e-3, "threads": 1, "engine": "auto", "rows": []}
    row = {"instruction": 0, "node": 0, "seconds": 1e-3, "share": 1.0, "operators": ["linear"]}
    files["profile.json"] = json.dumps({**profile, "rows": [row, {**row, "node": 1}]}).encode()
    array = generator.random((2, 3), np.float32)
    for name, save in (("x.npy", np.save), ("x.npz", np.savez), ("y.npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, array)
        files[name] = file.getvalue()
    picture = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8))
    for kind in ("png", "jpeg", "bmp", "gif", "webp", "tiff", "ppm"):
        file = io.BytesIO()
        picture.save(file, kind)
        files[f"picture.{kind}"] = file.getvalue()
    return files


def input_tries() -> Callable[[int], str]:
    """What tries a case: reads it as a command does, and says what came of it."""
    files = honest()

    def tries(number: int) -> str:
        generator = random.Random(number)
        name = generator.choice(sorted(files))
        if name.endswith(".json") and generator.random() < 0.8:
            data = changed_json(files[name], generator)
        else:
            data = damaged(files[name], generator)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            path = Path(place) / name
            path.write_bytes(data)
            return read(path)

    return tries


@cache
def _described() -> ProgramDescription:
    """The program that the profile is of."""
    from penstock.runtime import load
    from penstock.tools.describe import describe

    path = STOCK / "image_fp32.pte"
    return describe(load(path).program, str(path), path.stat().st_size)


def read(path: Path) -> str:
    from penstock.cli.feeds import read_inputs
    from penstock.errors import PenstockError
    from penstock.labels import read_labels
    from penstock.runtime.specs import TensorSpec
    from penstock.tools.describe.timings import read_timings

    try:
        if path.suffix == ".txt":
            read_labels(str(path))
        elif path.suffix == ".json":
            read_timings(path, _described())
        elif path.suffix in (".npy", ".npz"):
            read_inputs([str(path)], [TensorSpec((2, 3), np.dtype("float32"))])
        else:
            read_inputs([str(path)], [TensorSpec((1, 3, 8, 8), np.dtype("float32"))])
        return "ran"
    except PenstockError as error:
        check_message(error)
        return "refused at load"

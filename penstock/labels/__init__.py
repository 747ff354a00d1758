"""Names of classes, and the answers of classifiers in words.

``imagenet.txt`` holds ImageNet's 1000 classes by the short names that torchvision gives them
(``imagenet.LICENSE`` is torchvision's licence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import InputError
from penstock.files import readable
from penstock.text import printable

#: How many of the likeliest classes are named.
_TOP = 5
#: A million classes of 64 letters.
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Guess:
    """A class that an input may belong to, and how likely that is."""

    index: int
    name: str
    probability: float


def read_labels(which: str) -> list[str]:
    """The names in ``which``: ``imagenet``, or a text file (UTF-8) with one name in each line.

    Raises InputError for a file that cannot be read or holds no names.
    """
    path = Path(__file__).with_name("imagenet.txt") if which == "imagenet" else Path(which)
    try:
        if readable(path, "file of labels").stat().st_size > _MOST_BYTES:
            raise InputError(f"{which} is too large to be a file of labels; give one name a line")
        # Editors on Windows put a byte order mark before the text.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"cannot read the labels in {which}: {reason}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"the file of labels {which} is empty; give one name a line")
    return [printable(line.strip()) for line in lines]


def guesses(outputs: Sequence[Any], names: Sequence[str]) -> tuple[int, list[list[Guess]]]:
    """Which of ``outputs`` has a value for each of ``names`` (the first whose last dimension is
    that long), and the likeliest classes of each of its rows.

    The values are taken as they are where they are probabilities already, else through a softmax.
    Raises InputError when there is no such output.
    """
    for index, output in enumerate(outputs):
        if _scores(output) and output.shape[-1] == len(names):
            rows = output.reshape(-1, len(names)).astype(np.float64)
            return index, [_likeliest(row, names) for row in rows]
    sizes = [str(list(output.shape)) for output in outputs if isinstance(output, np.ndarray)]
    raise InputError(
        f"there are {len(names)} labels, and no output has that many classes: the outputs' shapes "
        f"are {', '.join(sizes) or 'none'}; give the labels of this model"
    )


def _scores(output: Any) -> bool:
    return isinstance(output, np.ndarray) and output.ndim > 0 and output.dtype.kind not in "bc"


def _likeliest(row: np.ndarray, names: Sequence[str]) -> list[Guess]:
    probabilities = row if _sums_to_one(row) else _softmax(row)
    top = np.argsort(-probabilities, kind="stable")[:_TOP]
    return [Guess(int(i), names[i], float(probabilities[i])) for i in top]


def _sums_to_one(row: np.ndarray) -> bool:
    return bool((row >= 0).all() and abs(row.sum() - 1) < 1e-2)


def _softmax(row: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(row - row.max())
        shares: np.ndarray = powers / powers.sum()
    return shares

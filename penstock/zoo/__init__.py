"""The model zoo: a name gives a model, example inputs, calibration data and a way to quantize it.

zoo.names()                     # the names; no torch is imported
zoo.entry("mv2").summary        # what it is; no torch is imported
model = zoo.create("mv2")       # seeded random weights
model = zoo.create("mv2", weights="default")        # the library's pretrained weights
model = zoo.create("mv2", weights="my_mv2.pt")      # a checkpoint
model = zoo.create("efficientnet_lite0")            # ImageNet weights, if their package is there
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import InputError, did_you_mean
from penstock.zoo.registry import ENTRIES, Entry

if TYPE_CHECKING:
    from penstock.zoo.model import ZooModel

__all__ = ["Entry", "create", "entry", "names"]


def names() -> list[str]:
    """The names of all models, sorted."""
    return sorted(ENTRIES)


def entry(name: str) -> Entry:
    """What the zoo says about the model ``name``; ``InputError`` when there is none."""
    try:
        return ENTRIES[name]
    except KeyError:
        raise InputError(
            f"unknown model {name!r}{did_you_mean(name, ENTRIES)}; the valid names are: "
            f"{', '.join(names())}"
        ) from None


def create(name: str, weights: str | None = None, *, seed: int = 0) -> ZooModel:
    """Makes the model ``name``.

    ``weights``: ``"random"`` for seeded random weights, ``"default"`` for the library's pretrained
    ones, or the path of a checkpoint (``.pt``, ``.pth``, ``.safetensors``) with a state dictionary.
    ``None``: those of the package that carries the model's weights where it is installed
    (``entry(name).package``), else random ones.

    Raises ``InputError`` for an unknown name, a library that is not installed, or weights that
    cannot be had or do not fit the model.
    """
    found = entry(name)
    from penstock.zoo.model import build

    return build(found, weights, seed)

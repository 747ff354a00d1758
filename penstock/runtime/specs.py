"""What a method takes and gives: :class:`TensorSpec` and :class:`ScalarSpec`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a NumPy ``dtype``. A ``dynamic`` one may be smaller than ``shape`` in any
    dimension, not larger; ``bounded`` is False where it may have any size. ``dim_order`` lists the
    dimensions from the outermost to the innermost in memory; an array in another order is copied.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dynamic: bool = False
    bounded: bool = True
    dim_order: tuple[int, ...] | None = None

    def __str__(self) -> str:
        sizes = (f"<={size}" if self.dynamic else str(size) for size in self.shape)
        return f"{self.dtype}[{', '.join(sizes)}]"


@dataclass(frozen=True)
class ScalarSpec:
    """An ``int``, ``float``, ``bool``, ``str`` or ``None``. A ``fixed`` one was built into the
    program when it was compiled: no other value than ``value`` is accepted."""

    type: str
    value: int | float | bool | str | None
    fixed: bool = True

    def __str__(self) -> str:
        return f"{self.type} = {self.value!r}" if self.fixed else self.type


Spec: TypeAlias = "TensorSpec | ScalarSpec"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names out of a file, fit for one line of an error message whatever and however many they
    are."""
    every = list(names)
    shown = [name if name.isprintable() else ascii(name) for name in every[:most]]
    shown = [name if len(name) <= 60 else f"{name[:57]}..." for name in shown]
    rest = [f"and {len(every) - most} more"] if len(every) > most else []
    return ", ".join((*shown, *rest)) or "none"

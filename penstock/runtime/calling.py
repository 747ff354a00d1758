"""How a method is called: flat lists of values to and from the model's own structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.formats.program import Method

_CONTAINERS = (tuple, list, dict)


class Signature:
    def __init__(self, method: Method) -> None:
        self._name = method.name
        self._count = len(method.inputs)

    def is_flat(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        return True

    def flatten(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
        return args

    def fold(self, outputs: list[Any]) -> Any:
        return tuple(outputs)

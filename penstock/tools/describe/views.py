"""Views: values that no instruction writes, because they lie where another value lies. The stock
compiler makes them of ``view_copy``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.formats.program import Method, Tensor


class Places:
    """Which value was written last where, and whether anyone has read it since; as one walks along
    the instructions."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._last: dict[tuple[int, int], int] = {}
        self._unread: set[int] = set()
        self.write(method.inputs)

    def write(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            place = self._place(number)
            if place is not None:
                self._last[place] = number
                self._unread.add(number)

    def read(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._unread -= {number, self.owner(number)}

    def owner(self, number: int) -> int | None:
        """The value that was written last where this one lies, if that is large enough."""
        place = self._place(number)
        found = None if place is None else self._last.get(place)
        if found is None or self._bytes(found) < self._bytes(number):
            return None
        return found

    def is_unread(self, number: int) -> bool:
        return number in self._unread

    def _place(self, number: int) -> tuple[int, int] | None:
        value = self._method.values[number] if 0 <= number < len(self._method.values) else None
        if not isinstance(value, Tensor) or value.allocation is None:
            return None
        return value.allocation.memory_id, value.allocation.offset

    def _bytes(self, number: int) -> int:
        value = self._method.values[number]
        assert isinstance(value, Tensor)
        return value.nbytes


def find_views(
    method: Method, steps: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> dict[int, int]:
    """What each view is a view of. ``steps`` are what each instruction reads and writes, the
    outputs of the method as the last one's reads; lists of tensors replaced by their items."""
    written = {number for _, outputs in steps for number in outputs} | set(method.inputs)
    places = Places(method)
    found: dict[int, int] = {}
    for inputs, outputs in steps:
        for number in inputs:
            owner = None if number in written or number in found else places.owner(number)
            if owner is not None:
                found[number] = owner
        places.write(outputs)
    return found

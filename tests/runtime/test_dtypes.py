"""NumPy's types of a program's tensors: as wide as the format says."""

from __future__ import annotations

import pytest

from penstock.errors import UnsupportedError
from penstock.formats.program import ScalarType
from penstock.runtime.dtypes import numpy_dtype


@pytest.mark.parametrize("kind", ScalarType)
def test_every_type_is_as_wide_as_the_format_says_or_refused(kind: ScalarType) -> None:
    if kind.array is None:
        with pytest.raises(UnsupportedError, match=f"element type {kind.name}"):
            numpy_dtype(kind)
    else:
        assert (numpy_dtype(kind).name, numpy_dtype(kind).itemsize) == (kind.array, kind.size)


def test_numbers_of_no_type_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="element type number 99"):
        numpy_dtype(99)


def test_all_but_packed_types_have_one() -> None:
    without = {kind for kind in ScalarType if kind.array is None}
    assert without == {ScalarType.COMPLEXHALF, ScalarType.QUINT4X2, ScalarType.QUINT2X4}

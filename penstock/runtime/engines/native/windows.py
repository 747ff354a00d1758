"""Which depthwise convolutions in fp32 have code of their own (``native/f32_dwconv_tile.h``)."""

from __future__ import annotations

from penstock.graph.kinds import Conv2dAttributes

#: The width and stride of a row of the filter.
_ROWS = frozenset({(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)})
#: The most rows.
_HEIGHT = 7


def has_window(a: Conv2dAttributes) -> bool:
    """Whether an input is read once for all of seven outputs; else once for each that needs it."""
    return (a.kernel[1], a.stride[1]) in _ROWS and a.kernel[0] <= _HEIGHT and max(a.dilation) == 1

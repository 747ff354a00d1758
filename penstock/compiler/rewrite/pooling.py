"""Pooling that has no kernel, out of pooling of planes or window by window."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

aten = torch.ops.aten


def adaptive_max_pool2d(x: Tensor, output_size: list[int]) -> tuple[Tensor, Tensor]:
    """Row ``i`` of ``n`` sees the rows from floor(i · h / n) to ceil((i + 1) · h / n)."""
    height, width = x.shape[-2:]
    rows, columns = output_size
    fixed = isinstance(height, int) and isinstance(width, int)
    if fixed and height % rows == 0 and width % columns == 0:
        window = [height // rows, width // columns]
        values, places = aten.max_pool2d_with_indices.default(x, window)
        return values, places
    found: list[list[Tensor]] = [[], []]
    for top, bottom in _windows(height, rows):
        for left, right in _windows(width, columns):
            window_of = x[..., top:bottom, left:right].flatten(-2)
            value, place = torch.max(window_of, -1)
            size = right - left
            row, column = torch.div(place, size, rounding_mode="floor") + top, place % size + left
            found[0].append(value)
            found[1].append(row * width + column)
    values, places = (torch.stack(one, -1).unflatten(-1, (rows, columns)) for one in found)
    return values, places


def _windows(size: int, count: int) -> list[tuple[int, int]]:
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_max_pool3d(x: Tensor, output_size: list[int]) -> tuple[Tensor, Tensor]:
    """Window by window; places count through the whole volume."""
    sizes = x.shape[-3:]
    windows = [_windows(size, count) for size, count in zip(sizes, output_size, strict=True)]
    found: list[tuple[Tensor, Tensor]] = []
    for (front, back), (top, bottom), (left, right) in itertools.product(*windows):
        value, place = torch.max(x[..., front:back, top:bottom, left:right].flatten(-3), -1)
        plane, width = (bottom - top) * (right - left), right - left
        layer = torch.div(place, plane, rounding_mode="floor") + front
        row = torch.div(place % plane, width, rounding_mode="floor") + top
        found.append((value, (layer * sizes[1] + row) * sizes[2] + place % width + left))
    values, places = (
        torch.stack(list(one), -1).unflatten(-1, output_size) for one in zip(*found, strict=True)
    )
    return values, places


def avg_pool3d(
    x: Tensor, kernel_size: list[int], stride: list[int] | None = None,
    padding: list[int] = [0], ceil_mode: bool = False, count_include_pad: bool = True,  # noqa: B006
    divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Pooling of the planes, then of the depth: a window has as many elements as its sides say."""
    if not x.is_floating_point():
        raise NotImplementedError  # integers would be rounded twice
    kernel, pads = (list(one) * (3 // len(one)) for one in (kernel_size, padding))
    strides = list(stride) * (3 // len(stride)) if stride else kernel
    how = (ceil_mode, count_include_pad, 1 if divisor_override else None)
    pool = torch.nn.functional.avg_pool2d
    flat = x.flatten(0, -3)
    planes = pool(flat[:, None], kernel[1:], strides[1:], pads[1:], *how)
    planes = planes[:, 0].unflatten(0, x.shape[:-2])
    columns = planes.flatten(-2)
    deep = pool(columns, (kernel[0], 1), (strides[0], 1), (pads[0], 0), *how)
    result: Tensor = deep.unflatten(-1, planes.shape[-2:])
    return result / divisor_override if divisor_override else result


def adaptive_avg_pool3d(x: Tensor, output_size: list[int]) -> Tensor:
    """Pooling of the planes, then of the depth beside the flattened plane; all of it is a mean."""
    if all(isinstance(size, int) and size == 1 for size in output_size):
        return x.mean((-3, -2, -1), keepdim=True)
    planes = aten._adaptive_avg_pool2d.default(x.flatten(0, -3), output_size[1:])
    planes = planes.unflatten(0, x.shape[:-2])
    flat = planes.flatten(-2)
    deep: Tensor = aten._adaptive_avg_pool2d.default(flat, [output_size[0], flat.shape[-1]])
    result: Tensor = deep.unflatten(-1, planes.shape[-2:])
    return result

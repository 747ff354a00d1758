"""The elements of a tensor as bytes."""

from __future__ import annotations

import torch


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The elements of ``tensor``, of any type and layout, row-major; of what lies so already, its
    own memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel() == 1:
        # One element is contiguous whatever its stride, which may be 0 where it was expanded.
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data

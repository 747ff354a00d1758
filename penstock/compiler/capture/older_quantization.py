"""Models that PyTorch's older quantization (``torch.ao.quantization``, eager and FX) or an
unfinished one has made: what they are, and what to do, where ``torch.export`` says neither."""

from __future__ import annotations

import torch

_INSTEAD = (
    "lower the float model with quantize=..., or quantize it by torchao (quantize_, its PT2E flow)"
)
_OBSERVERS = ("ObserverBase", "AffineQuantizedObserverBase", "FakeQuantizeBase")


def quantized_otherwise(model: torch.nn.Module) -> str | None:
    """Why ``torch.export`` cannot capture a quantized ``model``, if that is the reason."""
    for name, module in model.named_modules():
        kind = type(module)
        if kind.__module__.startswith("torch.ao.nn.") and ".quantized." in f"{kind.__module__}.":
            return (
                f"{name or 'it'}, a {kind.__module__}.{kind.__qualname__}, computes with quantized "
                f"tensors, which torch.export does not take: {_INSTEAD}"
            )
    for name, module in model.named_modules():
        if any(base.__name__ in _OBSERVERS for base in type(module).__mro__):
            return (
                f"it is prepared for quantization, and not converted ({name or 'it'} is a "
                f"{type(module).__name__}): give the result of convert_pt2e"
            )
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if tensor.is_quantized:
            return (
                f"{name} is a quantized tensor of PyTorch's ({tensor.dtype}), which torch.export "
                f"does not take: keep tensor.int_repr(), or dequantize it; or {_INSTEAD}"
            )
    return None

"""``torch.cov`` and ``torch.corrcoef``: PyTorch's own definitions of them look at a value, the
number that they divide by, which stand-ins for tensors do not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: What ``torch.export`` says of them: of what they look at a value with.
SYMPTOM = "aten.equal.default"


def _cov(
    x: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """``torch.cov`` of ``[variables, observations]``, or of one variable, by other operators."""
    x = x.reshape(1, -1) if x.ndim < 2 else x
    weights = [w for w in (fweights, aweights) if w is not None]
    w = weights[0] * weights[-1] if len(weights) == 2 else weights[0] if weights else None
    weighted = x if w is None else x * w
    count: Any = x.shape[1] if w is None else w.sum()
    centred = x - (weighted.sum(1) / count).unsqueeze(1)
    if w is not None and aweights is not None and correction:
        divisor: Any = count - correction * (w * aweights).sum() / count
    else:
        divisor = count - correction
    # None or less is no number to divide by: PyTorch warns, and divides by 0.
    divisor = divisor.clamp(min=0) if isinstance(divisor, Tensor) else torch.sym_max(divisor, 0)
    found: Tensor = centred @ (centred if w is None else centred * w).t().conj() / divisor
    return found.squeeze()


def _corrcoef(x: Tensor) -> Tensor:
    """``torch.corrcoef`` by other operators."""
    covariances = _cov(x)
    if covariances.ndim == 0:
        return covariances / covariances
    deviations = covariances.diagonal().sqrt()
    found = covariances / deviations.unsqueeze(1) / deviations
    if found.is_complex():
        return torch.complex(found.real.clamp(-1, 1), found.imag.clamp(-1, 1))
    return found.clamp(-1, 1)


_DEFINITIONS: Mapping[Any, Any] = {
    torch.cov: _cov,
    Tensor.cov: _cov,
    torch.corrcoef: _corrcoef,
    Tensor.corrcoef: _corrcoef,
}


class Covariances(TorchFunctionMode):
    """Within it both are made of operators that look at no value."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _DEFINITIONS.get(func, func)(*args, **(kwargs or {}))

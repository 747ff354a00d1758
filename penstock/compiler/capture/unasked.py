"""What PyTorch's own layers and distributions ask of values, which a capture has none of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributions import Distribution
from torch.nn.modules import transformer

#: Of ``nn.TransformerEncoder`` and ``nn.TransformerDecoder``: whether a mask is the causal one.
_HINT = "_detect_is_causal_mask"


@contextmanager
def unasked() -> Iterator[None]:
    """Branches on data at which ``torch.export`` stops, and which change no answer, are not taken.

    Distributions do not look whether parameters and samples are in their ranges (one that was made
    with ``validate_args=True`` still does). Transformers do not compare a mask with the causal one,
    for a hint to attention; the mask is added in either case.
    """
    validate, detect = Distribution._validate_args, getattr(transformer, _HINT)
    Distribution.set_default_validate_args(False)
    setattr(transformer, _HINT, _as_told)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validate)
        setattr(transformer, _HINT, detect)


def _as_told(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    return is_causal is True

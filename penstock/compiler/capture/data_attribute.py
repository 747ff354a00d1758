"""``tensor.data`` in a model: ``torch.export`` does not see where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from penstock.errors import ExportError

#: What ``torch.export`` says then, after the trace.
SYMPTOM = "fake tensor in the exported program"
#: What it comes from, if not from ``.data``.
UNSEEN = "it computes a tensor where torch.export does not see it: by torch.autograd, for one"


class NoAssignments(TorchFunctionMode):
    """Within it an assignment to ``x.data``, which gives ``x`` other memory, is an
    :class:`ExportError`: the trace has nothing of it."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            raise ExportError(
                "the model assigns to a tensor's .data, which torch.export cannot follow; write "
                "into the tensor: x.copy_(values)"
            )
        return func(*args, **(kwargs or {}))


class DataIsDetached(NoAssignments):
    """Within it ``x.data`` is ``x.detach()``, too: the same memory, and an operator of the
    trace."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func == torch.Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        return super().__torch_function__(func, types, args, kwargs)

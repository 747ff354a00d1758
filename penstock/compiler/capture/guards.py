"""Questions about sizes to which ``torch.export`` does not find the answer, though there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from penstock.compiler.fx.all_sizes import common_answer

#: What PyTorch says where the answer for the example's sizes may not be that for all.
SYMPTOM = "Constraints violated"

#: PyTorch takes dynamic sizes for at least this, and then lets smaller ones through.
LEAST = 2


@contextmanager
def answered_by_trying() -> Iterator[None]:
    """A question about sizes whose answer is the same for all that were declared is no constraint.

    PyTorch asks in symbols, and does not see that ``min(8, n) <= n`` holds, or that a length which
    is filled up to a multiple of 64 is one. It takes the example's answer, and at the end demands
    of the dimension what it cannot prove. Within this context, sizes are tried.
    """
    evaluate = ShapeEnv.evaluate_expr

    def answer(env: ShapeEnv, expression: Any, *args: Any, **kwargs: Any) -> Any:
        found = common_answer(env, expression, LEAST)
        return evaluate(env, expression, *args, **kwargs) if found is None else found

    with (
        patch.object(ShapeEnv, "evaluate_expr", answer),
        patch.object(_config, "backed_size_oblivious", True),
    ):
        yield

"""Questions about sizes to which ``torch.export`` does not find the answer, though there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import sympy
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from penstock.compiler.capture.failures import calling_line
from penstock.compiler.fx.all_sizes import common_answer

#: What PyTorch says where the answer for the example's sizes may not be that for all.
SYMPTOM = "Constraints violated"

#: PyTorch takes dynamic sizes for at least this, and then lets smaller ones through.
LEAST = 2


@contextmanager
def answered_by_trying(fixed: list[str]) -> Iterator[None]:
    """A question about sizes whose answer is the same for all that were declared is no constraint.

    PyTorch asks in symbols, and does not see that ``min(8, n) <= n`` holds, or that a length which
    is filled up to a multiple of 64 is one. It takes the example's answer, and at the end demands
    of the dimension what it cannot prove. Within this context, sizes are tried. ``fixed`` gets the
    lines of the model that asked for a size as a number, which makes it one.
    """
    evaluate = ShapeEnv.evaluate_expr

    def answer(env: ShapeEnv, expression: Any, *args: Any, **kwargs: Any) -> Any:
        found = common_answer(env, expression, LEAST)
        if found is not None:
            return found
        if isinstance(expression, sympy.Symbol) and expression in env.backed_var_to_val:
            fixed.append(calling_line())
        return evaluate(env, expression, *args, **kwargs)

    with (
        patch.object(ShapeEnv, "evaluate_expr", answer),
        patch.object(_config, "backed_size_oblivious", True),
    ):
        yield

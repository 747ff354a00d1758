"""Eager PyTorch; takes ``.pt2`` archives of ``torch.export``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from penstock.tools.bench.worker import Run


class EagerTorch:
    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def load(self, path: str, data: Sequence[str]) -> Run:
        program = torch.export.load(path)
        module, structure = program.module(), program.call_spec.in_spec

        def run(inputs: Sequence[Any]) -> list[torch.Tensor]:
            with torch.inference_mode():
                args, kwargs = pytree.tree_unflatten(inputs, structure)
                leaves = pytree.tree_leaves(module(*args, **kwargs))
            return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

        return run

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        return [torch.from_numpy(i) if isinstance(i, np.ndarray) else i for i in inputs]

"""Eager PyTorch as one side of a comparison: :class:`EagerSide`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter, Node

from penstock.cli.sources import Source
from penstock.compiler.capture.export import capture
from penstock.compiler.fx.origins import origin
from penstock.tools.compare.taps import Tap, type_name


class EagerSide:
    """The model as ``torch.export`` captures it, run by PyTorch operator by operator.

    Raises ExportError where it cannot be captured.
    """

    def __init__(self, source: Source) -> None:
        self.label = f"{source.name} (eager)"
        self._captured = capture(source.model, source.args, source.kwargs)

    def run(self, inputs: Sequence[Any]) -> tuple[list[np.ndarray], list[Tap]]:
        """See :class:`penstock.tools.compare.taps.Side`."""
        given = [torch.from_numpy(i.copy()) if isinstance(i, np.ndarray) else i for i in inputs]
        recorder = _Recorder(self._captured.module)
        with torch.no_grad():
            outputs = recorder.run(*given)
        leaves = torch.utils._pytree.tree_leaves(outputs)
        found = [_array(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return found, recorder.taps


class _Recorder(Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.taps: list[Tap] = []
        self._position: dict[Node, int] = {}
        #: of nodes that are no taps themselves: the taps that they were computed from
        self._through: dict[Node, tuple[int, ...]] = {}

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        reads = tuple(dict.fromkeys(p for n in node.all_input_nodes for p in self._of(n)))
        if node.op != "call_function" or not isinstance(result, torch.Tensor):
            self._through[node] = reads
            return result
        self._position[node] = len(self.taps)
        self.taps.append(
            Tap(
                origin(node),
                str(getattr(node.target, "__name__", node.target)),
                type_name(str(result.dtype).removeprefix("torch.")),
                _array(result),
                reads,
            )
        )
        return result

    def _of(self, node: Node) -> tuple[int, ...]:
        if node in self._position:
            return (self._position[node],)
        return self._through.get(node, ())


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return np.array(tensor.numpy())

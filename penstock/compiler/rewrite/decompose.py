"""Decompose operators without a kernel into operators that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import out_variants
from penstock.compiler.fx.all_sizes import SpecializationError
from penstock.compiler.fx.edit import fake_mode
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite.decompositions import DECOMPOSITIONS, RESTRICTED
from penstock.compiler.rewrite.definitions import Definitions, recorded
from penstock.compiler.rewrite.inline import hopeless, inline
from penstock.compiler.rewrite.small_matrices import OtherSizeError
from penstock.errors import UnsupportedError

#: A decomposition of a decomposition of … is followed this far.
MAX_DEPTH = 8


def apply(module: GraphModule) -> int:
    """Given an operator that no kernel implements → Result: the operators of its decomposition
    (views become their copying twins), until every one has a kernel.

    What decomposes and what does not follows from the list of the kernels. Raises
    :class:`UnsupportedError` where that leads nowhere.
    """
    sizes = SizeNodes(module)
    changes = 0
    with fake_mode(module):
        for node in list(module.graph.nodes):
            changes += _decompose(module, node, sizes, 0)
    return changes


def needs_nothing(target: Any) -> bool:
    """Whether there is a kernel, or (sizes, their arithmetic, delegate calls) nothing to run."""
    return not isinstance(target, torch._ops.OpOverload) or out_variants.find(target) is not None


def _decompose(module: GraphModule, node: Node, sizes: SizeNodes, depth: int) -> int:
    if node.op != "call_function":
        return 0
    function = _restricted(node)
    if function is None and needs_nothing(node.target):
        return 0
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    twin = None if function or target in DECOMPOSITIONS else out_variants.copying_twin(target)
    if twin is not None:
        node.target = twin
        return 1
    if depth == MAX_DEPTH:
        raise hopeless(node)
    made = inline_decomposition(module, node, sizes, function or _defined(target))
    return 1 + sum(_decompose(module, item, sizes, depth + 1) for item in made)


def _defined(target: torch._ops.OpOverload) -> Callable[..., Any]:
    """What to call for ``target``: Penstock's own definition where there is one, at the level at
    which operators can be noted; above it PyTorch takes some apart by itself."""
    own = DECOMPOSITIONS.get(target)
    if own is None:
        return target

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return own(*args, **kwargs)

    return call


def _restricted(node: Node) -> Callable[..., Any] | None:
    """What to compute instead of an operator whose kernel does not take these arguments."""
    found = RESTRICTED.get(node.target)
    return found[1] if found is not None and found[0](node) else None


def _stops(target: torch._ops.OpOverload) -> bool:
    """Whether a kernel computes ``target``, or its copying twin."""
    if needs_nothing(target):
        return True
    return target not in DECOMPOSITIONS and out_variants.copying_twin(target) is not None


_DEFINITIONS = Definitions(_stops)


def inline_decomposition(
    module: GraphModule, node: Node, sizes: SizeNodes, function: Callable[..., Any]
) -> list[Node]:
    """Replaces ``node`` by what ``function`` (its target, or another way to compute that) comes
    to in operators that have kernels; returns the new nodes."""
    try:
        recording = recorded(node, function, _DEFINITIONS)
    except SpecializationError as error:
        raise UnsupportedError(
            f"{node.target} has no kernel, and is not composed of others for all sizes alike: "
            f"{error}; give it a fixed size{describe_origin(node)}"
        ) from None
    except OtherSizeError as error:
        raise UnsupportedError(
            f"{node.target} has no kernel, and is composed of others for {error} only"
            f"{describe_origin(node)}"
        ) from None
    except (RecursionError, NotImplementedError):  # PyTorch's table may go round in a circle
        raise hopeless(node) from None
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"{node.target} has no kernel, and its definition fails: {reason}"
            f"{describe_origin(node)}"
        ) from error
    unknown = recording.result is NotImplemented
    if unknown or any(item.target is function for item in recording.calls):
        raise hopeless(node)
    return inline(module, node, sizes, recording)

"""Where a node comes from: the module path and the source line of the user's model."""

from __future__ import annotations

import os
import re
import sys

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from penstock.formats.sources import Origin

#: The key of the module stack of nodes that ``torch.export`` adds by itself: sizes, assertions.
_ADDED = "_empty_nn_module_stack_from_metadata_hook"
#: A frame in torch's own package, here or (of an archive) where it was exported.
_TORCH = re.compile(
    rf'File "({re.escape(os.path.join(os.path.dirname(torch.__file__), ""))}'
    r"|torch/|.*/(site|dist)-packages/torch/|.*/torch/nn/modules/)"
)


def module_path(node: Node) -> str:
    """The dotted path of the module that the node was called in, e.g. ``features.0.1``; empty for
    the outermost one.

    ``nn_module_stack`` maps a key to (path, type). Paths of ``torch.export`` are plain, older ones
    read ``L['self'].features.0``.
    """
    stack = node.meta.get("nn_module_stack") or {}
    entries = [str(path) for key, (path, *_) in stack.items() if key != _ADDED]
    return entries[-1].removeprefix("L['self']").removeprefix(".") if entries else ""


def module_types(node: Node) -> list[str]:
    """The full names of the classes of the modules that the node was called in, the outermost
    first; ``torch.export`` keeps the names, older captures the classes."""
    stack = node.meta.get("nn_module_stack") or {}
    kinds = [kind for key, (_, kind, *_) in stack.items() if key != _ADDED]
    return [
        f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)
        for kind in kinds
    ]


def source_line(node: Node) -> str:
    """The last line of the user's own source in the node's stack trace: ``file:line``. Of a model
    that has no source of its own, the line of torch's module."""
    frames = _frames(node)
    own = [frame for frame in frames if not _TORCH.match(frame)]
    frames = own or [frame for frame in frames if "torch/nn/" in frame]
    if not frames:
        return ""
    parts = frames[-1].split('"')
    rest = parts[2].split(",") if len(parts) > 2 else []
    number = next((p.split()[-1] for p in rest if p.strip().startswith("line ")), "?")
    return f"{parts[1]}:{number}"


def _frames(node: Node) -> list[str]:
    """``File "model.py", line 7, in forward``, outermost first."""
    trace = node.meta.get("stack_trace") or ""
    return [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]


def adopt_added(module: GraphModule) -> None:
    """Given: a node that ``torch.export`` added, which no line of the model made → Result: it comes
    from where the first of its users that have an origin does."""
    for node in reversed(module.graph.nodes):  # the users of a user are settled before it
        stack = node.meta.get("nn_module_stack") or {}
        if _ADDED not in stack:
            continue
        users = sorted(node.users)
        maker = next((user for user in users if source_line(user) or module_path(user)), None)
        for key in ("nn_module_stack", "stack_trace"):
            node.meta.pop(key, None)
            if maker is not None and key in maker.meta:
                node.meta[key] = maker.meta[key]


def describe_origin(node: Node) -> str:
    """Where a node comes from, to be put at the end of a message: `` (encoder.0, model.py:7)``."""
    parts = [part for part in (module_path(node), source_line(node)) if part]
    return f" ({', '.join(parts)})" if parts else f" (node {node.name})"


def origin(node: Node) -> Origin:
    """Where ``node`` comes from. Files are named from the folder that Python imports them from, so
    that a program does not tell where it was compiled."""
    target = node.target
    operator = str(target) if isinstance(target, (str, OpOverload)) else target.__name__
    return Origin(module_path(node), _portable(source_line(node)), operator)


def _portable(line: str) -> str:
    """``file:line`` without the longest folder of ``sys.path`` that the file is in."""
    folders = (os.path.join(os.path.abspath(folder), "") for folder in (*sys.path, os.getcwd()))
    inside = [folder for folder in folders if line.startswith(folder)]
    return line[len(max(inside, key=len)) :] if inside else os.path.basename(line)

"""Where a node comes from: the module path and the source line of the user's model."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from torch._ops import OpOverload
from torch.fx import Node

from penstock.formats.sources import Origin


def module_path(node: Node) -> str:
    """The dotted path of the innermost ``nn.Module`` that made the node, e.g. ``features.0.1``."""
    stack = node.meta.get("nn_module_stack") or {}
    entries: Sequence[tuple[str, object]] = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def source_line(node: Node) -> str:
    """The last line of the user's own source in the node's stack trace: ``file:line``."""
    trace = node.meta.get("stack_trace") or ""
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [frame for frame in frames if "/torch/nn/modules/" not in frame]
    frames = own or frames
    if not frames:
        return ""
    parts = frames[-1].split('"')
    rest = parts[2].split(",") if len(parts) > 2 else []
    number = next((p.split()[-1] for p in rest if p.strip().startswith("line ")), "?")
    return f"{parts[1]}:{number}"


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

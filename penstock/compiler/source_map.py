"""Origins of nodes for the source map of a program."""

from __future__ import annotations

import os
import sys

from torch.fx import Node

from penstock.compiler.report import module_path, source_line
from penstock.formats.sources import Origin


def origin(node: Node) -> Origin:
    """Where ``node`` comes from. Files are named from the folder that Python imports them from, so
    that a program does not tell where it was compiled."""
    return Origin(module_path(node), _portable(source_line(node)), str(node.target))


def _portable(line: str) -> str:
    """``file:line`` without the longest folder of ``sys.path`` that the file is in."""
    folders = (os.path.join(os.path.abspath(folder), "") for folder in (*sys.path, os.getcwd()))
    inside = [folder for folder in folders if line.startswith(folder)]
    return line[len(max(inside, key=len)) :] if inside else os.path.basename(line)

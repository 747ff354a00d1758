"""What PyTorch says of a model that it cannot capture, as a line: what is wrong, where, what to
do."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path
from types import FrameType

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.utils.rnn import PackedSequence

from penstock.errors import shorten

#: Folders, with their separators: torchvision's begins like torch's.
_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in (Path(str(torch.__file__)).parent, Path(__file__).parents[2])
)
_RECURRENT = str(torch.nn.modules.rnn.__file__)
PACKED = (
    "; torch.export does not follow packed sequences, whose sizes depend on data: give the layer "
    "the padded tensor, and take what lies beyond a sequence's end out of its result"
)
#: Where PyTorch's messages turn to those who debug PyTorch.
NOISE = re.compile(
    r"For more information, run with|For extended logs|If you suspect|For more debugging|For C\+\+"
    r"|The error above occurred|If you would like|User code traceback|Caused by: \(_export"
    r"|\(unhinted|\(Size-like|from user code|Set TORCH|Potential framework"
    r"|If you're using (?:mark_dynamic|Dim\.DYNAMIC)|consider using data-dependent|Suggested fixes"
)
#: The line of the model that PyTorch names.
CULPRIT = re.compile(r'The following call raised this error:\s+File "(.*?)", line (\d+)')
#: What a call inside of a branch or loop raised, at the end of a line that lists its operands.
RAISED = re.compile(
    r"Dynamo failed to run FX node with fake tensors: .*: got (\w+\(.*\))$", re.MULTILINE
)
#: Behind it, after an empty line, stands what hinders a branch or loop.
PREAMBLE = "Got graph break/error:"
MAX_REASON, MAX_FIXES = 300, 200


def in_one_line(error: BaseException) -> str:
    """The error's type and message: as much of it as says what is wrong, and where."""
    message = str(error).rpartition(PREAMBLE)[2].lstrip()
    raised = RAISED.search(message)
    if raised is not None:
        message = _said(raised[1])
    lines = [NOISE.split(line)[0].strip() for line in message.splitlines()]
    blank = next((i for i, line in enumerate(lines) if i and not line), len(lines))
    text = shorten(" ".join(lines[:blank]), MAX_REASON)
    culprit = CULPRIT.search(str(error))
    text += f" ({culprit[1]}:{culprit[2]})" if culprit is not None else place(error)
    if isinstance(error, (GuardOnDataDependentSymNode, DataDependentOutputException)):
        text += (
            "; what a model computes may decide which operators it runs only by torch.cond and "
            "while_loop; or use torch.where"
        )
    if isinstance(error, DynamicOutputShapeException):
        text += (
            "; PyTorch tells the sizes of its results only by running it: compute it from other "
            "operators, or outside of the model"
        )
    fixes = message.partition("Suggested fixes:")[2].strip().partition("\n\n")[0]
    if fixes:
        text += f"; dimensions that would fit: {shorten(', '.join(fixes.splitlines()), MAX_FIXES)}"
    text = text.strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _said(raised: str) -> str:
    """The message of an exception that stands there as Python shows it."""
    try:
        tree = ast.parse(raised, mode="eval").body
        assert isinstance(tree, ast.Call)
        return str(ast.literal_eval(tree.args[0]))
    except (SyntaxError, ValueError, AssertionError, IndexError):
        return raised


def place(error: BaseException) -> str:
    """``" (file:line)"``, the innermost line that is neither PyTorch's nor Penstock's; and what to
    do in place of a packed sequence, if a recurrent layer got one."""
    found, advice = "", ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == _RECURRENT and any(
            isinstance(value, PackedSequence) for value in trace.tb_frame.f_locals.values()
        ):
            advice = PACKED
        if not _is_library(file):
            found = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found + advice


def calling_line() -> str:
    """``"file:line"`` of the innermost caller that is neither PyTorch's nor Penstock's."""
    frame = calling_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def calling_frame() -> FrameType:
    """The innermost caller that is neither PyTorch's nor Penstock's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_library(file: str) -> bool:
    """Code without a file too, but for what is typed into IPython."""
    return file.startswith((*_LIBRARIES, "<")) and not file.startswith("<ipython-input")

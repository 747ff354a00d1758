"""Where in a model something failed, and what to do, read off the traceback."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.utils.rnn import PackedSequence

_LIBRARIES = (str(Path(str(torch.__file__)).parent), str(Path(__file__).parents[2]))
_RECURRENT = str(torch.nn.modules.rnn.__file__)
PACKED = (
    "; torch.export does not follow packed sequences, whose sizes depend on data: give the layer "
    "the padded tensor, and take what lies beyond a sequence's end out of its result"
)


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
        if not file.startswith((*_LIBRARIES, "<")):
            found = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found + advice

"""TorchDynamo, which traces branches and loops within ``torch.export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: Where PyTorch's own functions are that it compiles for control flow.
OPERATORS = "/torch/_higher_order_ops/"


@contextmanager
def independent_of_other_models() -> Iterator[None]:
    """TorchDynamo keeps what it compiled of ``torch.cond`` and the like for other models: it makes
    sizes dynamic that differ from those, fixes sizes by comparing them, and gives up after a few
    models. Within this context it begins anew, for these functions; what a user compiled stays."""
    import torch._dynamo
    from torch._C._dynamo.eval_frame import reset_code
    from torch._dynamo import convert_frame

    seen = convert_frame.input_codes.seen
    for code in filter(None, (reference() for reference in list(seen))):
        if OPERATORS in code.co_filename.replace("\\", "/"):
            reset_code(code)
    with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
        yield

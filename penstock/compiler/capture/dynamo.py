"""TorchDynamo, which traces branches and loops within ``torch.export``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def around_compilations(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Within this context ``before`` and ``after`` run around each compilation of TorchDynamo."""
    from torch._dynamo.callback import callback_handler

    def start(_: Any) -> None:
        before()

    def end(_: Any) -> None:
        after()

    callback_handler.register_start_callback(start)
    callback_handler.register_end_callback(end)
    try:
        yield
    finally:
        # Each may be gone: torch._dynamo.reset() forgets all.
        for callbacks, own in (
            (callback_handler.start_callbacks, start),
            (callback_handler.end_callbacks, end),
        ):
            if own in callbacks:
                callbacks.remove(own)

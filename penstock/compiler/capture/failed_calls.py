"""Calls of submodules that raise what the model catches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch.fx import Tracer


@contextmanager
def failed_calls_end() -> Iterator[None]:
    """Within it the tracer leaves a module whose call raises. It forgets to, and fails at the end
    of the module that caught the error: ``try: layer(x, lengths=n)``, ``except TypeError:
    layer(x)``."""
    call_module = Tracer.call_module

    def leaving(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        entered = list(self.module_stack.items())
        try:
            return call_module(self, *args, **kwargs)
        except BaseException:
            self.module_stack.clear()
            self.module_stack.update(entered)
            raise

    with mock.patch.object(Tracer, "call_module", leaving):
        yield

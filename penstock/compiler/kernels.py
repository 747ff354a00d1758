"""From functional ATen overloads to the out variants that kernels implement."""

from __future__ import annotations

from functools import cache

import torch

aten = torch.ops.aten


class KernelNameError(Exception):
    """An operator has no out variant; the message says which."""


@cache
def out_variant(target: torch._ops.OpOverload) -> tuple[torch._ops.OpOverload, int]:
    """The out variant of a functional overload and its number of out arguments.

    ``aten.add.Tensor`` → ``aten.add.out``, 1. The match is by schema: the same arguments by name
    and type, out arguments apart. Raises :class:`KernelNameError` where there is none.
    """
    namespace = getattr(torch.ops, target.namespace)
    packet = getattr(namespace, target._schema.name.split("::")[1])
    own = [(a.name, _plain(a)) for a in target._schema.arguments]
    for overload in packet.overloads():
        candidate = getattr(packet, overload)
        outs = [a for a in candidate._schema.arguments if a.is_out]
        if not outs:
            continue
        rest = [(a.name, _plain(a)) for a in candidate._schema.arguments if not a.is_out]
        if rest == own:
            return candidate, len(outs)
    raise KernelNameError(f"{target} has no out variant")


def _plain(argument: torch._C.Argument) -> str:
    return str(argument.type)

"""A description as the page that shows it wants it: lean, with the drawing of each method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from penstock.graph.kinds import NodeKind
from penstock.tools.describe.drawing import draw
from penstock.tools.describe.program import ProgramDescription
from penstock.tools.describe.timings import Timings

_PRODUCTS = (NodeKind.BATCH_MATRIX_MULTIPLY, NodeKind.SCALED_DOT_PRODUCT_ATTENTION)


def page_data(program: ProgramDescription, timings: Timings | None = None) -> dict[str, Any]:
    """What ``web/src/inspect.js`` draws. What is as it is by default is left out, and so are the
    single scales of channels: a page has their range."""
    data: dict[str, Any] = _lean(program)
    data["constant_bytes"] = program.constant_bytes
    for method, plain in zip(program.methods, data["methods"], strict=True):
        plain["drawing"] = _lean(draw(method))
        plain["share"] = method.delegation.share
        plain["memory"]["peak"] = method.memory.peak
    kinds = {
        node.kind for method in program.methods for one in method.delegates for node in one.nodes
    }
    data["families"] = {kind: _family(NodeKind[kind.upper()]) for kind in sorted(kinds)}
    if timings is not None:
        data["timings"] = _lean(timings)
    return data


def _family(kind: NodeKind) -> str:
    """What the nodes of a kind have in common with those of others, for their colour."""
    if kind.traits.weighted or kind in _PRODUCTS:
        return "product"
    if kind.traits.selects or kind.traits.joins:
        return "movement"
    return "elementwise" if kind.traits.elementwise else "other"


def _lean(data: Any) -> Any:
    if is_dataclass(data) and not isinstance(data, type):
        found = {}
        for field in fields(data):
            value = getattr(data, field.name)
            default = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            if value != default and field.name != "scales":
                found[field.name] = _lean(value)
        return found
    if isinstance(data, Mapping):
        return {key: _lean(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_lean(item) for item in data]
    return data

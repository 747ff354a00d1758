"""Names in a :class:`Quantization` that fit nothing of a model: a mistyped one would go unseen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.fx.control_flow import all_graphs
from penstock.compiler.fx.edit import operator_name
from penstock.compiler.fx.origins import module_path, module_types
from penstock.compiler.quantize.quantization import Quantization, fits_module, fits_type


def unused_names(module: GraphModule, quantization: Quantization) -> list[str]:
    """A line for each option with names that fit no operator of the graph."""
    nodes = [n for part in all_graphs(module) for n in part.graph.nodes if n.op == "call_function"]
    modules = {module_path(node) for node in nodes}
    operators = {name for node in nodes for name in _names(node)}
    types = {name for node in nodes for name in module_types(node)}

    def in_module(pattern: str) -> bool:
        return any(fits_module(pattern, path) for path in modules)

    def is_operator(pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in operators)

    fits: dict[str, tuple[Iterable[object], Callable[[str], bool]]] = {
        "skip": (quantization.skip, lambda p: in_module(p) or is_operator(p)),
        "overrides": (quantization.overrides, in_module),
        "module_types": (
            quantization.module_types,
            lambda p: any(fits_type(p, name) for name in types),
        ),
        "operators": (quantization.operators, is_operator),
    }
    found = {
        option: [str(p) for p in given if not fit(str(p))] for option, (given, fit) in fits.items()
    }
    return [
        f"{option} names {', '.join(map(repr, names))}, which fits no operator of the model as it"
        " is quantized"
        for option, names in found.items()
        if names
    ]


def _names(node: Node) -> set[str]:
    entry = registry.find(node.target)
    return {operator_name(node)} | ({entry.name} if entry is not None else set())

"""Constants within branches and loops -> operands of these.

PyTorch cannot trace a graph again whose branches or loops hold tensors of their own
(``x[torch.tensor([1, 0])]``): it takes them for its stand-ins of another trace.
"""

from __future__ import annotations

import copy

import torch
from torch._export.passes.lift_constants_pass import ConstantAttrMap, lift_constants_pass
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from penstock.compiler.fx.control_flow import all_graphs, graph_names, is_control_flow


def as_operands(program: ExportedProgram) -> ExportedProgram:
    """Given ``cond(p, {x -> x + c}, {x -> x}, (x,))``, ``c`` a tensor → Result
    ``cond(p, {x, y -> x + y}, {x, y -> x}, (x, c))``, ``c`` a constant of the program. ``program``
    itself stays as it is."""
    if not any(map(_held, all_graphs(program.graph_module))):
        return program
    module = copy.deepcopy(program.graph_module)
    signature = copy.deepcopy(program.graph_signature)
    _hand_in(module)
    constants = lift_constants_pass(module, signature, ConstantAttrMap())
    for part in all_graphs(module):
        for name in [*part._buffers, *part._parameters]:
            delattr(part, name)
        part.recompile()
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants={**program.constants, **constants},
        verifiers=program.verifiers,
    )


def _held(module: GraphModule) -> list[Node]:
    """The nodes that name tensors of ``module`` itself."""
    return [
        node
        for node in module.graph.nodes
        if node.op == "get_attr" and isinstance(getattr(module, node.target, None), torch.Tensor)
    ]


def _hand_in(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        if not is_control_flow(node):
            continue
        graphs = [getattr(module, str(name.target)) for name in graph_names(node)]
        for body in graphs:
            _hand_in(body)
            for constant in _held(body):
                _hand_in_one(module, node, constant, graphs)


def _hand_in_one(
    module: GraphModule, node: Node, constant: Node, graphs: list[GraphModule]
) -> None:
    """``constant``, of one of the ``graphs`` of ``node``, becomes an operand of ``node`` and the
    last input of each graph."""
    value = getattr(constant.graph.owning_module, str(constant.target))
    name = next(
        name for count in range(1 << 30) if not hasattr(module, name := f"_constant_{count}")
    )
    module.register_buffer(name, value)
    with module.graph.inserting_before(node):
        operand = module.graph.get_attr(name)
    operand.meta = dict(constant.meta)
    *others, shared = node.args
    assert isinstance(shared, (tuple, list))
    node.args = (*others, (*shared, operand))
    for body in graphs:
        *_, last = (n for n in body.graph.nodes if n.op == "placeholder")
        with body.graph.inserting_after(last):
            given = body.graph.placeholder(name)
        given.meta = dict(constant.meta)
        if body.graph is constant.graph:
            constant.replace_all_uses_with(given)
            body.graph.erase_node(constant)

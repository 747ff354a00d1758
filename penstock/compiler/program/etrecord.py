"""ETRecord files: what ExecuTorch's ``Inspector`` needs to say which operators of the exported
program an event of a profile belongs to.

A record is a zip archive with the exported program (as ExecuTorch's own serialization has it, an
older form of PyTorch's), whose operators have debug handles, and with maps from the program's
instructions, and the nodes of its delegates, to these handles.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch._export.serde.serialize import serialize
from torch.export import ExportedProgram
from torch.fx import Node

from penstock.compiler.fx.origins import module_path, source_line
from penstock.compiler.program.made import Made
from penstock.errors import UnsupportedError
from penstock.formats.etdump import node_id
from penstock.formats.program import DelegateCall, Method

IDENTIFIER = "ETRECORD_V0"
#: The version of the form of exported programs, and what it calls the types that have another
#: number in PyTorch's.
VERSION = {"major": 5, "minor": 4}
_TYPES = {28: 14, 29: 16, 31: 15}
#: What the form has of a program, a graph module, a graph and a node.
_PROGRAM = ("graph_module", "opset_version", "range_constraints", "verifiers")
_MODULE = ("graph", "signature", "module_call_graph")
_GRAPH = (
    "inputs", "outputs", "nodes", "tensor_values", "sym_int_values", "sym_bool_values",
    "is_single_tensor_return", "custom_obj_values",
)  # fmt: skip
_NODE = ("name", "target", "inputs", "outputs", "metadata")
_UNKNOWN = (
    "as_sym_float", "as_sym_floats", "as_complex", "as_nested_tensors", "as_int_lists",
    "as_string_to_argument", "as_float_lists",
)  # fmt: skip
_TO_DEVICE, _TO_DTYPE = "torch.ops.aten.to.device", "torch.ops.aten.to.dtype"


class EtRecord:
    """What is known of one program: the exported program before anything was done to it, and which
    of its operators each instruction of the method came from.

    Raises:
        UnsupportedError: the form of exported programs in these files cannot hold this one.
    """

    def __init__(self, exported: ExportedProgram) -> None:
        # Serialized now: branches and loops are lowered in place.
        try:
            self._artifact = serialize(exported)
        except Exception as error:
            raise UnsupportedError(
                f"torch cannot serialize the exported program for an ETRecord: {error}"
            ) from error
        self._graph = exported.graph
        calls = [node for node in self._graph.nodes if node.op == "call_function"]
        self._handles = {node.name: handle for handle, node in enumerate(calls, 1)}
        self._by_line: dict[tuple[str, str], list[int]] = {}
        for node in calls:
            self._by_line.setdefault(_line(node), []).append(self._handles[node.name])
        program = older_form(json.loads(self._artifact.exported_program), self._handles)
        self._program = json.dumps(program).encode()
        self._method = ""
        self._maps: dict[str, Any] = {}

    def enter(self, method: Method, made: Sequence[Made]) -> None:
        """Notes what the program's method became, and what its instructions were made of."""
        handles, delegates, outputs = {}, {}, {}
        for position, (instruction, one) in enumerate(zip(method.instructions, made, strict=True)):
            handles[position] = self._of(one.nodes)
            if isinstance(instruction, DelegateCall) and one.graph is not None:
                delegates[position] = {
                    "name": method.delegates[instruction.delegate].id,
                    "delegate_map": {
                        node_id(i, node.kind.name): self._of(one.of_handle(node.debug_handle))
                        for i, node in enumerate(one.graph.nodes)
                    },
                }
                outputs[position] = len(one.graph.outputs)
        self._method = method.name
        self._maps = {
            "debug_handle_map": handles,
            "delegate_map": delegates,
            "instruction_id_to_num_outs_map": outputs,
        }

    def to_bytes(self) -> bytes:
        """The file."""
        name, artifact = self._method, self._artifact
        base = f"edge_dialect_exported_program/{name}"
        content = {
            IDENTIFIER: b"",
            base: self._program,
            f"{base}_state_dict": artifact.state_dict,
            f"{base}_constants": artifact.constants,
            f"{base}_example_inputs": artifact.example_inputs,
            **{key: json.dumps({name: value}).encode() for key, value in self._maps.items()},
        }
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for key, value in content.items():
                # of one time, so that one model gives one file
                archive.writestr(zipfile.ZipInfo(key), value)
        return file.getvalue()

    def _of(self, nodes: Iterable[Node]) -> list[int]:
        """The debug handles of the operators that ``nodes`` were made of: those that their history
        names; where it is lost, those of the same module and line of source."""
        found: dict[int, None] = {}
        for node in nodes:
            own = list(self._in_history(node.meta.get("from_node") or ()))
            found.update(dict.fromkeys(own or self._by_line.get(_line(node), [])))
        return sorted(found)

    def _in_history(self, history: Iterable[Any]) -> Iterable[int]:
        for source in history:
            if source.graph_id == id(self._graph) and source.name in self._handles:
                yield self._handles[source.name]
            else:
                yield from self._in_history(source.from_node or ())


def _line(node: Node) -> tuple[str, str]:
    return module_path(node), source_line(node)


def older_form(program: Mapping[str, Any], handles: Mapping[str, int]) -> dict[str, Any]:
    """PyTorch's JSON of an exported program in the form that ExecuTorch reads, with the debug
    ``handles`` of nodes by name.

    Raises:
        UnsupportedError: it has an argument of a kind that the form lacks.
    """
    found = {key: _with_example_sizes(program[key]) for key in _PROGRAM}
    found |= {"schema_version": VERSION, "dialect": "", "range_constraints": {}}
    module = {key: found["graph_module"][key] for key in _MODULE}
    found["graph_module"] = module
    for entry in module["module_call_graph"]:
        if entry.get("signature"):
            entry["signature"].pop("forward_arg_names", None)
    module["graph"] = _older_graph(module["graph"], handles)
    return found


def _with_example_sizes(value: Any) -> Any:
    """Sizes that vary are those of the example inputs: a record is there to name operators, and the
    two forms do not say ranges of sizes alike."""
    if isinstance(value, list):
        return [_with_example_sizes(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"as_expr"}:
        return value["as_expr"].get("hint") or {"as_int": 1}
    return {key: _with_example_sizes(item) for key, item in value.items()}


def _older_graph(graph: Mapping[str, Any], handles: Mapping[str, int]) -> dict[str, Any]:
    found = {key: graph[key] for key in _GRAPH if key in graph}
    for meta in found["tensor_values"].values():
        meta["dtype"] = _TYPES.get(meta["dtype"], meta["dtype"])
    found["nodes"] = [_older_node(node, handles) for node in graph["nodes"]]
    return found


def _older_node(node: Mapping[str, Any], handles: Mapping[str, int]) -> dict[str, Any]:
    found = {key: node[key] for key in _NODE}
    found["name"] = name = found["name"] or ""
    inputs = node["inputs"]
    if found["target"] == _TO_DEVICE:
        # The Inspector cannot read devices, and there is one alone.
        found["target"] = _TO_DTYPE
        inputs = [item for item in inputs if item["name"] != "device"]
    found["inputs"] = [
        {"name": item["name"], "arg": _older_argument(item["arg"], name)} for item in inputs
    ]
    found["outputs"] = [_older_argument(item, name) for item in node["outputs"]]
    if name in handles:
        found["metadata"] = {**node["metadata"], "debug_handle": str(handles[name])}
    return found


def _older_argument(argument: Mapping[str, Any], node: str) -> dict[str, Any]:
    ((kind, value),) = argument.items()
    if kind in _UNKNOWN:
        raise UnsupportedError(
            f"an ETRecord cannot hold the argument {kind.removeprefix('as_')} of {node}; compile"
            " without one"
        )
    if kind == "as_optional_tensor":
        ((kind, value),) = value.items()
    if kind == "as_scalar_type":
        value = _TYPES.get(value, value)
    if kind == "as_graph":
        value = {**value, "graph": _older_graph(value["graph"], {})}
    return {kind: [] if kind == "as_none" else value}

"""``penstock inspect``: what a ``.pte`` file holds, without running it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape

from penstock.cli.completion import PROGRAMS
from penstock.cli.machine import show_machine
from penstock.cli.run_file import split_names
from penstock.errors import InputError, InvalidProgramError
from penstock.formats.program import (
    XNNPACK_BACKEND,
    DelegateCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    Program,
    Tensor,
)
from penstock.formats.sources import KEY, MethodSources, Origin, decode_sources
from penstock.runtime import load


def inspect_command(
    file: Annotated[
        Optional[Path],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Argument(help="The .pte file.", autocompletion=PROGRAMS),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="List each XNNPACK node, and where it is from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data_path: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The data files (.ptd) with its weights, separated by commas."),
    ] = None,
    machine: Annotated[
        bool,
        typer.Option("--machine", help="Show what runs delegates on this machine; takes no file."),
    ] = False,
) -> None:
    """Show what a .pte file holds, or what this machine runs it with.

    Example: penstock inspect mv2_xnnpack_q8.pte --nodes
    """
    if machine:
        if file is not None:
            raise InputError(f"--machine shows the machine, not {file}; give one of the two")
        show_machine(as_json=as_json)
        return
    if file is None:
        raise InputError("name a .pte file, or give --machine")
    program = load(file, data=split_names(data_path)).program
    size = file.stat().st_size
    found = {"path": str(file), "bytes": size, **describe(program, nodes=nodes)}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(str(file))}[/bold]  {size:,} bytes")
    for method in found["methods"]:
        console.print(f"\nmethod [bold]{escape(_printable(method['name']))}[/bold]")
        for kind in ("inputs", "outputs"):
            for index, text in enumerate(method[kind]):
                console.print(_printable(f"  {kind[:-1]} {index}: {text}"), markup=False)
        console.print(
            f"  constants {method['constant_bytes']:,} bytes, "
            f"planned memory {sum(method['memory']):,} bytes"
        )
        console.print("  instructions")
        for line, origin in zip(method["instructions"], method["origins"], strict=True):
            console.print(_printable(f"    {line}  {origin}".rstrip()), markup=False)
        for index, delegate in enumerate(method["delegates"]):
            console.print(
                _printable(
                    f"  delegate {index}: {delegate['id']}, payload {delegate['bytes']:,} bytes"
                ),
                markup=False,
            )
            for kind, number in delegate.get("kinds", {}).items():
                console.print(f"    {number:5d} {kind}", markup=False)
            if "error" in delegate:
                console.print(_printable(f"    {delegate['error']}"), markup=False)
            lines = zip(delegate.get("nodes", []), delegate.get("origins", []), strict=True)
            for line, origin in lines:
                console.print(_printable(f"    {line}  {origin}".rstrip()), markup=False)


def _printable(text: str) -> str:
    """``text`` out of a file, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)


def describe(program: Program, *, nodes: bool) -> dict[str, Any]:
    """The program as plain data; what ``--json`` prints."""
    try:
        sources = decode_sources(program.named_data[KEY]) if KEY in program.named_data else {}
    except InvalidProgramError:
        sources = {}  # nothing depends on it
    return {
        "version": program.version,
        "named_data": {name: len(blob) for name, blob in program.named_data.items()},
        "methods": [
            _method(method, program, nodes, sources.get(method.name, MethodSources()))
            for method in program.methods
        ],
    }


def _method(
    method: Method, program: Program, nodes: bool, sources: MethodSources
) -> dict[str, Any]:
    constants = {
        id(value.data): len(value.data)
        for value in method.values
        if isinstance(value, Tensor) and value.data is not None
    }
    return {
        "name": method.name,
        "inputs": [_value(method.values[index]) for index in method.inputs],
        "outputs": [_value(method.values[index]) for index in method.outputs],
        "constant_bytes": sum(constants.values()),
        "memory": method.memory_sizes,
        "instructions": [_instruction(method, call) for call in method.instructions],
        "origins": [
            _origin(sources.of_instruction(position))
            for position in range(len(method.instructions))
        ],
        "delegates": [
            _delegate(
                delegate.id,
                delegate.payload,
                program,
                partial(sources.of_node, number),
                nodes=nodes,
            )
            for number, delegate in enumerate(method.delegates)
        ],
    }


def _origin(origin: Origin) -> str:
    """Where something comes from in the user's model: ``features.0.1 (model.py:12)``."""
    source = origin.source and f"({origin.source})"
    return " ".join(part for part in (origin.module, source) if part)


def _delegate(
    name: str,
    payload: Any,
    program: Program,
    origin_of: Callable[[int], Origin],
    *,
    nodes: bool,
) -> dict[str, Any]:
    from penstock.formats.payload_reader import read_payload

    found: dict[str, Any] = {"id": name, "bytes": len(payload)}
    if name != XNNPACK_BACKEND:
        return found
    try:
        graph = read_payload(payload, program.named_data)
    except (InputError, InvalidProgramError) as error:
        return {**found, "error": str(error)}
    kinds = Counter(node.kind.name.lower() for node in graph.nodes)
    found["kinds"] = dict(kinds.most_common())
    if nodes:
        values = {value.id: value for value in graph.values}
        found["nodes"] = [
            f"{node.kind.name.lower()}("
            + ", ".join(_operand(values.get(i)) for i in node.inputs)
            + ") -> "
            + ", ".join(_operand(values.get(i)) for i in node.outputs)
            for node in graph.nodes
        ]
        found["origins"] = [_origin(origin_of(node.debug_handle)) for node in graph.nodes]
    return found


def _operand(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value.dtype.name.lower()}{list(value.shape)}"


def _value(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    order = value.dim_order
    layout = "" if order is None or list(order) == sorted(order) else f" dim order {list(order)}"
    bound = "" if value.dynamism.name == "STATIC" else " at most"
    return f"{value.dtype.name.lower()} {list(value.shape)}{bound}{layout}"


def _instruction(method: Method, call: Instruction) -> str:
    if isinstance(call, KernelCall):
        return f"{method.operators[call.operator]} {list(call.args)}"
    if isinstance(call, DelegateCall):
        return f"delegate {call.delegate} {list(call.args)}"
    if isinstance(call, MoveCall):
        return f"move {call.source} -> {call.target}"
    if isinstance(call, JumpFalseCall):
        return f"jump to {call.destination} if {call.condition} is false"
    return f"free {call.value}"

"""A description of a program in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from penstock.formats.sources import Origin
from penstock.text import printable
from penstock.tools.describe.delegates import DelegateDescription, NodeDescription
from penstock.tools.describe.program import MethodDescription, ProgramDescription
from penstock.tools.describe.values import ValueDescription

_CONSTANTS = 10


def show_program(program: ProgramDescription, console: Console, *, nodes: bool) -> None:
    """Prints what a person asks first; with ``nodes`` each node of a delegate."""
    console.print(f"[bold]{escape(printable(program.path))}[/bold]  {program.size}")
    for method in program.methods:
        _show_method(method, console, nodes=nodes)
    if program.constants:
        console.print("\nlargest constants")
    for constant in program.constants[:_CONSTANTS]:
        shape = "" if constant.shape is None else f"  {constant.dtype} {list(constant.shape)}"
        _line(console, f"  {constant.bytes:12,} bytes  {constant.name}{shape}")
    rest = len(program.constants) - _CONSTANTS
    if rest > 0:
        console.print(f"  and {rest:,} more")


def _line(console: Console, text: str) -> None:
    console.print(printable(text).rstrip(), markup=False)


def _show_method(method: MethodDescription, console: Console, *, nodes: bool) -> None:
    console.print(f"\nmethod [bold]{escape(printable(method.name))}[/bold]{_share(method)}")
    for kind, numbers in (("input", method.inputs), ("output", method.outputs)):
        for index, number in enumerate(numbers):
            _line(console, f"  {kind} {index}: {method.values[number].text}")
    plan = method.memory
    console.print(
        f"  planned memory {sum(plan.sizes):,} bytes, at most {plan.peak:,} live at one time"
    )
    console.print("  instructions")
    for one in method.instructions:
        _line(console, f"    {one.text}  {_origin(one.origin)}")
    for delegate in method.delegates:
        _show_delegate(delegate, console, nodes=nodes)


def _share(method: MethodDescription) -> str:
    found = method.delegation
    if found.share is not None:
        return f": {found.share:.1%} of {_count(found.delegated + found.outside, 'node')} delegated"
    return f": {_count(found.outside, 'kernel')} outside of delegates" if found.unknown else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _show_delegate(delegate: DelegateDescription, console: Console, *, nodes: bool) -> None:
    name = f"  delegate {delegate.number}: {delegate.backend}, payload {delegate.bytes:,} bytes"
    _line(console, name)
    for kind, number in delegate.kinds.items():
        console.print(f"    {number:5d} {kind}", markup=False)
    if delegate.error:
        _line(console, f"    {delegate.error}")
    if nodes:
        values = {value.id: value for value in delegate.values}
        for node in delegate.nodes:
            _line(console, f"    {_node(node, values)}  {_origin(node.origin)}")


def _node(node: NodeDescription, values: dict[int, ValueDescription]) -> str:
    """``add(qint8[2, 3], qint8[2, 3]) -> qint8[2, 3] (scale 0.1, zero point 0)``"""
    inputs, outputs = (
        [values[number] for number in numbers] for numbers in (node.inputs, node.outputs)
    )
    made = [f"{v.text}{'' if v.quantization is None else f' ({v.quantization})'}" for v in outputs]
    return f"{node.kind}({', '.join(v.text for v in inputs)}) -> {', '.join(made)}"


def _origin(origin: Origin) -> str:
    """Where something comes from in the user's model: ``features.0.1 (model.py:12)``."""
    source = origin.source and f"({origin.source})"
    return " ".join(part for part in (origin.module, source) if part)

"""Against the stock package: it runs what is written here, and reads the same from its files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.formats import program as pte
from penstock.formats import structure
from penstock.formats.payload_reader import read_payload
from penstock.formats.payload_writer import write_payload
from penstock.formats.program_reader import read_program
from penstock.formats.program_writer import write_program

HERE = Path(__file__).parent
STOCK = HERE / "stock"
FILES = sorted(STOCK.glob("*.pte"))

needs_stock = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="needs the executorch package"
)


def stock(*args: str | Path) -> Any:
    command = [sys.executable, HERE / "formats_on_stock.py", *args]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1])


def rewritten(data: bytes, payloads: str) -> bytes:
    """The program read and written; its payloads, too, unless they are to be kept."""
    program = read_program(data)
    if payloads == "kept":
        return write_program(program)
    named: dict[str, pte.Buffer] = {}
    for method in program.methods:
        for delegate in method.delegates:
            graph = read_payload(delegate.payload, program.named_data)
            delegate.payload = write_payload(graph, named if payloads == "named" else None)
    program.named_data = named
    return write_program(program)


@needs_stock
def test_stock_runtime_gives_the_same_answers(tmp_path: Path) -> None:
    written = []
    for payloads in ("kept", "named", "inside"):
        (tmp_path / payloads).mkdir()
        for file in FILES:
            written.append(tmp_path / payloads / file.name)
            written[-1].write_bytes(rewritten(file.read_bytes(), payloads))
    assert stock("run", STOCK, *written) == {}


@pytest.mark.parametrize("payloads", ["named", "inside"])
def test_not_larger_than_the_stock_file(stock_file: Path, payloads: str) -> None:
    data = stock_file.read_bytes()
    assert len(rewritten(data, payloads)) <= 1.01 * len(data)


@needs_stock
def test_stock_reader_sees_the_same(tmp_path: Path) -> None:
    copies = [tmp_path / file.name for file in FILES]
    for file, copy in zip(FILES, copies, strict=True):
        copy.write_bytes(rewritten(file.read_bytes(), "kept"))
    theirs = stock("read", *FILES, *copies)
    assert theirs[: len(FILES)] == theirs[len(FILES) :]
    for file, methods in zip(FILES, theirs, strict=False):
        ours = [summary(method) for method in read_program(file.read_bytes()).methods]
        assert ours == methods


def summary(method: pte.Method) -> Any:
    """As ``formats_on_stock.summary``, from our dataclasses."""
    text = {
        "name": method.name,
        "values": [_value(value) for value in method.values],
        "calls": [_call(call) for call in method.instructions],
        "delegates": [(d.id, len(d.payload)) for d in method.delegates],
        "inputs": method.inputs,
        "outputs": method.outputs,
        "operators": [(op.name, op.overload) for op in method.operators],
        "memory": method.memory_sizes,
        "structure": [method.input_structure, method.output_structure],
    }
    return json.loads(json.dumps(text))


def _value(value: pte.Value) -> Any:
    if isinstance(value, pte.Tensor):
        return _tensor(value)
    kinds: dict[type, tuple[str, str]] = {
        int: ("Int", "int_val"),
        bool: ("Bool", "bool_val"),
        float: ("Double", "double_val"),
        str: ("String", "string_val"),
    }
    if value is None:
        return "Null", {}
    if type(value) in kinds:
        kind, field = kinds[type(value)]
        return kind, {field: value}
    return type(value).__name__, {"items": value.items}  # type: ignore[union-attr]


def _tensor(tensor: pte.Tensor) -> Any:
    allocation = tensor.allocation
    fields: dict[str, Any] = {
        "scalar_type": int(tensor.dtype),
        "sizes": tensor.shape,
        "dim_order": tensor.dim_order or tuple(range(len(tensor.shape))),
        "shape_dynamism": int(tensor.dynamism),
        "allocation_info": allocation
        and {
            "memory_id": allocation.memory_id,
            "memory_offset_low": allocation.offset,
            "memory_offset_high": 0,
        },
    }
    if tensor.data is not None:
        fields["data"] = bytes(memoryview(tensor.data)[:8]).hex()
    return "Tensor", fields


def _call(call: pte.Instruction) -> Any:
    match call:
        case pte.KernelCall(operator, args):
            return "KernelCall", {"op_index": operator, "args": args}
        case pte.DelegateCall(delegate, args):
            return "DelegateCall", {"delegate_index": delegate, "args": args}
        case pte.MoveCall(source, target):
            return "MoveCall", {"move_from": source, "move_to": target}
        case pte.JumpFalseCall(condition, destination):
            fields = {"cond_value_index": condition, "destination_instruction": destination}
            return "JumpFalseCall", fields
        case pte.FreeCall(value):
            return "FreeCall", {"value_index": value}


def test_structures_are_read_and_written_the_same(stock_file: Path) -> None:
    for method in read_program(stock_file.read_bytes()).methods:
        for text in (method.input_structure, method.output_structure):
            if text:  # methods that return a constant have no inputs' structure
                read = structure.decode(text)
                assert read is not None and structure.encode(read) == text


@needs_stock
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("program", "schema/program.fbs"),
        ("data", "extension/flat_tensor/serialize/flat_tensor.fbs"),
        ("etdump", "devtools/etdump/etdump_schema_flatcc.fbs"),
        ("xnnpack", "backends/xnnpack/serialization/runtime_schema.fbs"),
    ],
)
def test_schemas_agree(ours: str, theirs: str) -> None:
    """flatc's own check that two schemas read the same files, in both directions."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None and spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    flatc = package / "data" / "bin" / "flatc"
    files = [HERE.parents[1] / "penstock" / "formats" / "schema" / f"{ours}.fbs", package / theirs]
    for base, new in (files, files[::-1]):
        subprocess.run([flatc, "--conform", base, new], check=True, timeout=60)

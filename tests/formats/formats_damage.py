"""Run by the tests in a process of its own: loads and runs damaged programs.

``python formats_damage.py FIRST COUNT``. Case ``n`` is always the same one. The last line printed
is the number of the case at work, so that a crash can be repeated.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

import penstock
from penstock.formats import payload_writer, program_writer
from penstock.formats import program as pte
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.graph import Value

FILES = sorted((Path(__file__).parent / "stock").glob("*.pte"))
NUMBERS = (0, 1, 2, 3, 7, -1, 255, 1 << 20, (1 << 31) - 1, (1 << 32) - 1)


def damaged_bytes(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        position = generator.randrange(len(data))
        changed[position] = generator.randrange(256)
    return bytes(changed)


def damaged_meaning(data: bytes, generator: random.Random) -> bytes:
    """A file that is whole, and whose program says something else than before."""
    program = read_program(data)
    for _ in range(generator.randint(1, 3)):
        method = generator.choice(program.methods)
        if method.delegates and generator.random() < 0.5:
            delegate = generator.choice(method.delegates)
            graph = read_payload(delegate.payload, program.named_data)
            change_one(generator, generator.choice((graph.nodes, graph.values)), changed_xnn)
            # Not write_payload, which would refuse.
            delegate.payload = payload_writer._Writer(graph, program.named_data).payload()
        else:
            items = (method.values, method.values, method.instructions, method.memory_sizes)
            change_one(generator, generator.choice(items), changed)
    return b"".join(program_writer._Writer(program).chunks())


def change_one(generator: random.Random, items: list[Any], change: Callable[..., Any]) -> None:
    if items:
        index = generator.randrange(len(items))
        items[index] = change(generator, items[index])


def changed(generator: random.Random, item: Any) -> Any:
    """Something like ``item``; data is kept as long as the shape says."""
    if is_dataclass(item):
        name = generator.choice([f.name for f in fields(item) if f.name not in ("data", "scales")])
        result: Any = replace(item, **{name: changed(generator, getattr(item, name))})
        if isinstance(result, pte.Tensor) and result.data is not None:
            result.data = bytes(max(0, min(result.nbytes, 1 << 20)))
        return result
    if isinstance(item, IntEnum):
        return generator.choice(list(type(item)))
    if isinstance(item, bool):
        return not item
    if isinstance(item, int):
        return generator.choice((*NUMBERS, item + 1, item - 1, 2 * item))
    if isinstance(item, float):
        return generator.choice((0.0, -item, 1e30, float("inf"), float("nan")))
    if isinstance(item, tuple) and item:
        items = list(item)
        change = generator.choice(("item", "item", "shorter", "longer", "order"))
        if change == "item":
            change_one(generator, items, changed)
        elif change == "shorter":
            items.pop()
        elif change == "longer":
            items.append(items[0])
        else:
            generator.shuffle(items)
        return tuple(items)
    return item


def changed_xnn(generator: random.Random, item: Any) -> Any:
    result = changed(generator, item)
    if isinstance(result, Value) and result.data is not None:
        size = int(np.prod([float(n) for n in result.shape])) * 4
        result.data = bytes(max(0, min(size, 1 << 20)))
    return result


def run(data: bytes) -> None:
    program = penstock.load(data, threads=1)
    for name in program.methods:
        method = program.method(name)
        inputs = []
        for spec in method.inputs:
            if isinstance(spec, penstock.ScalarSpec):
                inputs.append(spec.value)
                continue
            if np.prod([float(size) for size in spec.shape]) > 1e6:
                return
            inputs.append(np.ones(spec.shape, spec.dtype))
        method.run(inputs)


def main(first: int, count: int) -> int:
    outcomes = {"runs": 0, "refused": 0}
    for number in range(first, first + count):
        print(number, flush=True)
        generator = random.Random(number)
        data = generator.choice(FILES).read_bytes()
        damage = generator.choice((damaged_bytes, damaged_meaning, damaged_meaning))
        try:
            data = damage(data, generator)
        except Exception:
            continue  # nothing that a file can hold
        try:
            run(data)
            outcomes["runs"] += 1
        except penstock.PenstockError as error:
            assert "\n" not in str(error), str(error)
            outcomes["refused"] += 1
    print(outcomes)
    return 0 if min(outcomes.values()) > count // 20 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))

"""Run by the tests in a process of its own, with the stock ``executorch`` package:

``run``: what the stock runtime answers; ``read``: how its Python reader sees a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

#: Fields of a tensor that no runtime looks at, and that the dataclasses lack.
UNUSED = ("storage_offset", "requires_grad", "layout", "extra_tensor_info")


def run(inputs: Path, paths: list[str]) -> None:
    """For each file NAME.pte compares with the outputs in ``inputs``/NAME.npz."""
    import executorch.kernels.quantized  # noqa: F401
    import numpy as np
    import torch
    from executorch.runtime import Runtime

    problems = {}
    for path in map(Path, paths):
        record = dict(np.load(inputs / f"{path.stem}.npz"))
        for method, number in sorted({tuple(key.split("|")[:2]) for key in record}):
            prefix = f"{method}|{number}|"
            args = [
                torch.from_numpy(record[f"{prefix}in{i}"])
                for i in range(sum(key.startswith(f"{prefix}in") for key in record))
            ]
            outputs = Runtime.get().load_program(path).load_method(method).execute(args)
            for index, output in enumerate(outputs):
                if not np.array_equal(np.asarray(output), record[f"{prefix}out{index}"]):
                    problems[f"{path} {prefix}{index}"] = str(output)
    print(json.dumps(problems))


def read(paths: list[str]) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary

    print(json.dumps([summary(deserialize_pte_binary(Path(p).read_bytes())) for p in paths]))


def summary(file: Any) -> Any:
    """What matters of a program, in plain lists; constants by their first bytes."""
    methods = []
    for plan in file.program.execution_plan:
        values = []
        for value in plan.values:
            fields = {k: _plain(v) for k, v in vars(value.val).items() if k not in UNUSED}
            if index := fields.pop("data_buffer_idx", 0):
                planned = fields["allocation_info"] is not None
                buffers = file.mutable_data if planned else file.program.constant_buffer
                fields["data"] = bytes(buffers[index].storage[:8]).hex()
            values.append((type(value.val).__name__, fields))
        calls = [
            (type(i.instr_args).__name__, _plain(vars(i.instr_args)))
            for i in plan.chains[0].instructions
        ]
        delegates = [
            (d.id, len(file.program.backend_delegate_data[d.processed.index].data))
            for d in plan.delegates
        ]
        methods.append(
            {
                "name": plan.name,
                "values": values,
                "calls": calls,
                "delegates": delegates,
                "inputs": plan.inputs,
                "outputs": plan.outputs,
                "operators": [[o.name, o.overload] for o in plan.operators],
                "memory": plan.non_const_buffer_sizes,
                "structure": [
                    plan.container_meta_type.encoded_inp_str,
                    plan.container_meta_type.encoded_out_str,
                ],
            }
        )
    return methods


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dict__") and not isinstance(value, int):
        return _plain(vars(value))
    return value


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(Path(sys.argv[2]), sys.argv[3:])
    else:
        read(sys.argv[2:])

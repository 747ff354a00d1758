"""Methods that give constants: on both runtimes, and refused where they make no sense."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock
from penstock.errors import InputError

CONSTANTS: dict[str, Any] = {
    "get_max_seq_len": 128,
    "use_kv_cache": True,
    "get_eos_ids": [2, 7],
    "rope_base": 1e4,
    "name": "tiny",
    "table": torch.arange(6.0).reshape(2, 3),
}

STOCK = """
import sys
from executorch.runtime import Runtime
program = Runtime.get().load_program(sys.argv[1])
for name in sorted(program.method_names - {"forward"}):
    print(name, [getattr(x, "tolist", lambda: x)() for x in program.load_method(name).execute([])])
"""


def lowered(constants: dict[str, Any]) -> penstock.Lowered:
    return penstock.lower(torch.nn.ReLU(), (torch.ones(2),), constant_methods=constants)


def test_here() -> None:
    program = penstock.load(lowered(CONSTANTS).to_bytes())
    assert set(program.methods) == {"forward", *CONSTANTS}
    for name, value in CONSTANTS.items():
        found = program.method(name)()
        if isinstance(value, torch.Tensor):
            np.testing.assert_array_equal(found[0], value.numpy())
        elif isinstance(value, list):
            assert found == value
        else:
            assert found == (value,)
            assert type(found[0]) is type(value)
    np.testing.assert_array_equal(program(np.array([-1, 1], np.float32))[0], [0, 1])


def test_on_the_stock_runtime(tmp_path: Path) -> None:
    constants = {name: value for name, value in CONSTANTS.items() if name != "name"}
    lowered(constants).save(tmp_path / "model.pte")
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(tmp_path / "model.pte")],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines == {
        "get_max_seq_len": "[128]",
        "use_kv_cache": "[True]",
        "get_eos_ids": "[2, 7]",
        "rope_base": "[10000.0]",
        "table": "[[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]",
    }


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"forward": 1}, "'forward'"),
        ({"": 1}, "the name ''"),
        ({"a b": 1}, "'a b'"),
        ({"big": 1 << 64}, "more than 64 bits"),
        ({"thing": object()}, "a object"),
        (["thing"], "a list; give a dict"),
    ],
)
def test_refused(constants: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        lowered(constants)

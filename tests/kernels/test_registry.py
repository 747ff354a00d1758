"""Which operators there are kernels for, and what the table says about them."""

from __future__ import annotations

import kernel_cases  # noqa: F401  (registers the cases)
import pytest
from kernel_harness import GENERATORS, operator

from penstock.formats.kernel_names import stock_kernels
from penstock.runtime.kernels import registry
from penstock.runtime.kernels.table import rows

#: The operators that executorch 1.5.1 registers, its quantized ones included.
OPERATORS = sorted(stock_kernels())

#: These share or grow memory: the method core has them.
CORE = {"executorch_prim::et_view.default", "executorch_prim::et_copy_index.tensor"}

#: Tested by themselves, because eager has nothing to compare them with.
ELSEWHERE = {
    "aten::_local_scalar_dense",
    "aten::copy_",
    "aten::empty.out",
    "aten::index_put_",
    "aten::native_dropout.out",
    "aten::rand.out",
    "aten::randn.out",
    "aten::sym_numel",
    "aten::sym_size.int",
}


def test_every_operator_has_a_kernel() -> None:
    assert set(OPERATORS) - set(registry.names()) <= CORE


def test_every_aten_kernel_is_compared_with_eager() -> None:
    ours = {name for name in registry.names() if name.startswith("aten::")}
    assert ours == set(GENERATORS) | ELSEWHERE


@pytest.mark.parametrize("name", [n for n in OPERATORS if n.startswith("aten::")])
def test_number_of_outs_is_that_of_the_schema(name: str) -> None:
    found = registry.find(name)
    assert found is not None
    arguments = operator(name)._schema.arguments
    outs = sum(a.alias_info is not None and a.kwarg_only for a in arguments)
    assert found.outs == outs
    assert found.in_place == (not outs and any(a.alias_info for a in arguments))


def test_table_describes_every_kernel() -> None:
    table = list(rows())
    names = [f"{row.name}.{row.overload}" if row.overload else row.name for row in table]
    # Tests of the method core register kernels of their own in the same process.
    assert names == [name for name in registry.names() if not name.startswith("test::")]
    for row in table:
        assert row.doc.endswith("."), row
        assert row.family.isidentifier(), row
        assert len(row.doc) <= 140, row

"""Every operator of PyTorch on the samples that PyTorch tests it with.

What compiles gives eager's answers, for the sample's values and for others; what does not is
refused in one line. ``torch.testing._internal`` promises nothing: without it these are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import penstock
from penstock.errors import ExportError, UnsupportedError

try:
    from torch.testing._internal.common_methods_invocations import op_db
except Exception as error:  # it imports, and asks for, much that need not be there
    OPERATORS: list[Any] = []
    WHY = f"torch.testing._internal cannot be imported: {error!r}"
else:
    OPERATORS = [one for one in op_db if torch.float32 in one.dtypes]
    WHY = ""

#: The fast part is every so many operators.
STRIDE = 40
#: Samples of each operator, spread over all that it has.
SAMPLES = 3
#: What is in the result is nobody's business.
UNDEFINED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty",
             "new_empty_strided")  # fmt: skip


def _name(info: Any) -> str:
    return ".".join(part for part in (info.name, info.variant_test_name) if part)


class Sample(torch.nn.Module):
    """A call whose tensors are inputs, whatever else it is given a constant."""

    def __init__(self, function: Callable[..., Any], call: Any) -> None:
        super().__init__()
        self.function = function
        self.leaves, self.structure = pytree.tree_flatten(call)
        self.places = [n for n, one in enumerate(self.leaves) if isinstance(one, torch.Tensor)]

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.leaves[place].detach() for place in self.places)

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return self.function(*args, **kwargs)


class _Draws(TorchDispatchMode):
    """Whether random numbers were drawn."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def _samples(info: Any) -> list[Sample]:
    torch.manual_seed(0)
    found = [
        Sample(info.op, ((one.input, *one.args), one.kwargs))
        for one in info.sample_inputs("cpu", torch.float32, requires_grad=False)
    ]
    plain = [
        one for one in found
        if all(tensor.layout is torch.strided for tensor in one.inputs)
    ]  # fmt: skip
    places = np.linspace(0, len(plain) - 1, SAMPLES).round().astype(int) if plain else []
    return [plain[place] for place in sorted(set(places))]


def _eager(sample: Sample, inputs: tuple[torch.Tensor, ...]) -> tuple[list[np.ndarray], bool]:
    """The outputs, and whether they are random."""
    with torch.no_grad(), _Draws() as draws:
        result = pytree.tree_leaves(sample(*(one.clone() for one in inputs)))
    values = [one.resolve_conj() if isinstance(one, torch.Tensor) else one for one in result]
    return [np.asarray(one) for one in values if one is not None], draws.found


def _check(found: Any, wanted: list[np.ndarray], random: bool) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        one = np.asarray(one)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if random or not other.size:
            continue
        size = np.abs(np.where(np.isfinite(other), other, 0)).max() if other.dtype != bool else 0
        within = (
            {"rtol": 1e-3, "atol": 1e-5 * max(1.0, float(size))} if one.dtype.kind in "fc" else {}
        )
        np.testing.assert_allclose(one, other, **{"rtol": 0, **within})


def _run(info: Any, record_property: Callable[[str, Any], None]) -> None:
    name = _name(info)
    for sample in _samples(info):
        inputs = sample.inputs
        try:
            wanted, random = _eager(sample, inputs)
        except Exception:  # what PyTorch has for other devices only
            continue
        try:
            program = penstock.load(penstock.lower(sample, inputs).to_bytes(), threads=1)
        except (ExportError, UnsupportedError) as refused:
            assert "\n" not in str(refused)
            record_property("by PyTorch's samples", type(refused).__name__)
            continue
        random |= name in UNDEFINED
        _check(program(*inputs), wanted, random)
        # In the same order and of the same signs, so that whatever is asked of them still holds.
        others = tuple(one * 0.75 if one.is_floating_point() else one for one in inputs)
        _check(program(*others), _eager(sample, others)[0], random)
        record_property("by PyTorch's samples", "as eager")


def _parameters(infos: list[Any]) -> Any:
    return pytest.mark.parametrize("info", infos, ids=_name)


@pytest.mark.skipif(not OPERATORS, reason=WHY)
@_parameters(OPERATORS[::STRIDE])
def test_some_operators(info: Any, record_property: Callable[[str, Any], None]) -> None:
    _run(info, record_property)


@pytest.mark.sweep
@pytest.mark.skipif(not OPERATORS, reason=WHY)
@_parameters(OPERATORS)
def test_operators(info: Any, record_property: Callable[[str, Any], None]) -> None:
    _run(info, record_property)

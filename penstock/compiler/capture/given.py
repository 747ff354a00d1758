"""What the caller gives: a module, an archive, example inputs, dynamic shapes. What cannot be
captured is refused here in the caller's words; PyTorch would speak in its own, or take it."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import AdditionalInputs, ExportedProgram, ShapesCollection
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from penstock.compiler.capture.failures import in_one_line
from penstock.compiler.capture.quietly import quietly
from penstock.compiler.fx.control_flow import all_graphs
from penstock.compiler.fx.origins import describe_origin
from penstock.errors import ExportError, InputError, shorten
from penstock.files import readable

aten = torch.ops.aten

#: Operators that take tensors of one type, and promote none.
_OF_ONE_TYPE = {
    aten.linear.default, aten.matmul.default, aten.mm.default, aten.bmm.default,
    aten.addmm.default, aten.baddbmm.default, aten.mv.default, aten.dot.default,
}  # fmt: skip


def load_archive(path: str | Path) -> ExportedProgram:
    """What ``torch.export.save`` wrote. Raises InputError for no file, ExportError for another."""
    readable(path, "archive")
    try:
        with quietly():
            return torch.export.load(os.fspath(path))
    except Exception as error:  # whatever the archive makes torch stumble over
        why = "" if "check the warnings" in str(error) else f": {in_one_line(error)}"
        raise ExportError(
            f"{path} is not an archive that torch.export can load{why}; give what"
            " torch.export.save wrote (.pt2), or in Python the module with example inputs"
        ) from error


def require_module(model: Any) -> None:
    """Raises InputError, or ExportError for TorchScript."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ExportError(
            "torch.export does not take TorchScript: give the module that was scripted or traced"
        )
    if isinstance(model, torch.nn.Module):
        return
    if isinstance(model, type):
        what = f"the class {model.__name__}; make one of it: {model.__name__}(...)"
    elif isinstance(model, Mapping):
        what = f"a {type(model).__name__}; weights go into their module: load_state_dict(...)"
    elif callable(model):
        what = f"a {type(model).__name__}; call it in the forward of a module"
    else:
        what = f"a {type(model).__name__}"
    raise InputError(f"expected a torch.nn.Module, got {what}")


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """``model`` without what computes the same on several devices, or compiles it: their
    ``forward`` takes anything, so that inputs have no names."""
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or hasattr(model, "_orig_mod"):
        inner = model.module if isinstance(model, parallel) else model._orig_mod
        assert isinstance(inner, torch.nn.Module)
        model = inner
    return model


def scripted(model: torch.nn.Module) -> str | None:
    """Which part of ``model`` is TorchScript, if any is, and what to do."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            return f"its {name} is TorchScript; give it the module that was scripted or traced"
    return None


def require_inputs(
    model: torch.nn.Module, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> None:
    """Raises InputError for what are no example inputs of ``model``."""
    if isinstance(args, Mapping):
        raise InputError(
            "example inputs must be a tuple, e.g. (x,), not a dict; those with names go to kwargs"
        )
    if args is None or not isinstance(args, Sequence) or isinstance(args, str):
        raise InputError("example inputs must be a tuple, e.g. (x,)")
    try:
        given = inspect.signature(model.forward).bind(*args, **(kwargs or {})).arguments
    except TypeError as error:
        name = type(model).__name__
        raise InputError(f"the example inputs do not fit {name}.forward: {error}") from None
    for name, value in given.items():
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, (np.ndarray, np.generic)):
                raise InputError(
                    f"the example input {name} is a NumPy {type(leaf).__name__};"
                    " give a tensor: torch.as_tensor(x)"
                )


def register_dataclasses(values: Any) -> bool:
    """Makes the dataclasses among ``values`` known to PyTorch, as containers; whether there were
    unknown ones."""
    found = False
    for leaf in pytree.tree_leaves(values):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            if type(leaf) not in pytree.SUPPORTED_NODES:
                torch.export.register_dataclass(type(leaf))
            register_dataclasses([leaf])
            found = True
    return found


def several_devices(model: torch.nn.Module, inputs: Any) -> str | None:
    """Where the first tensor of each device is, if there are several."""
    own = (*model.named_parameters(), *model.named_buffers())
    given = [("an example input", leaf) for leaf in pytree.tree_leaves(inputs)]
    found: dict[str, str] = {}
    for name, value in (*own, *given):
        if isinstance(value, torch.Tensor):
            found.setdefault(str(value.device), f"{name} is on {value.device}")
    if len(found) < 2:
        return None
    advice = "load the weights: meta has no values" if "meta" in found else 'say model.to("cpu")'
    return f"{' and '.join(found.values())}; move all to one device, {advice}"


def require_shapes(dynamic_shapes: Any) -> None:
    """Raises InputError for what has no entry for each input."""
    forms = (Mapping, tuple, list, ShapesCollection, AdditionalInputs)
    if dynamic_shapes is not None and not isinstance(dynamic_shapes, forms):
        raise InputError(
            f"dynamic_shapes is {shorten(repr(dynamic_shapes))}; give an entry for each input, a "
            'dict by its name: {"x": {0: torch.export.Dim("batch", max=8)}}'
        )


def require_as_exported(args: Any, kwargs: Any, dynamic_shapes: Any) -> None:
    """Raises InputError for what cannot be said any more of a program that was exported before."""
    if dynamic_shapes is not None:
        raise InputError(
            "dynamic_shapes is for modules: an exported program has the sizes that it was exported"
            " with; give them to torch.export.export"
        )
    if args is None and kwargs:
        raise InputError(
            "kwargs without args; give the example inputs of an exported program whole"
        )


def require_examples_of(program: ExportedProgram, args: Any, kwargs: Any) -> None:
    """Raises InputError for example inputs that are not those of an exported program: its sizes and
    types are fixed."""
    if pytree.tree_structure((args, kwargs)) != program.call_spec.in_spec:
        raise InputError("the example inputs do not have the structure that was exported")
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    leaves = pytree.tree_leaves((args, kwargs))
    for name, leaf in zip(program.graph_signature.user_inputs, leaves, strict=False):
        wanted = values.get(str(name))
        if not isinstance(wanted, torch.Tensor) or not isinstance(leaf, torch.Tensor):
            continue
        fits = (
            leaf.dtype == wanted.dtype
            and leaf.dim() == wanted.dim()
            and all(
                not isinstance(size, int) or size == found
                for size, found in zip(wanted.shape, leaf.shape, strict=True)
            )
        )
        if not fits:
            raise InputError(
                f"the example input {name} is {_described(leaf)}, and the program was exported for"
                f" {_described(wanted)}; give such a one, or export it anew"
            )


def require_values(module: GraphModule) -> None:
    """Raises InputError for weights without values."""
    for node in module.graph.nodes:
        if node.op == "get_attr":
            held = operator.attrgetter(str(node.target))(module)
            if isinstance(held, torch.Tensor) and held.device.type == "meta":
                raise InputError(
                    f"{node.target} is on the device meta, where tensors have no values; load the"
                    " weights before: load_state_dict(..., assign=True)"
                )


def require_one_type(module: GraphModule) -> None:
    """Raises ExportError for products of tensors of several types, which PyTorch refuses when it
    runs them, and does not when it captures them."""
    for part in all_graphs(module):
        for node in part.graph.nodes:
            if node.target not in _OF_ONE_TYPE:
                continue
            values = [argument.meta.get("val") for argument in node.all_input_nodes]
            types = {v.dtype: None for v in values if isinstance(v, torch.Tensor)}
            if len(types) > 1:
                found = " and ".join(str(dtype).removeprefix("torch.") for dtype in types)
                raise ExportError(
                    f"{node.target._opname} takes tensors of one type, not {found}; give inputs of "
                    f"the model's type, or convert one: x.to(...){describe_origin(node)}"
                )


def _described(value: torch.Tensor) -> str:
    shape = [size if isinstance(size, int) else str(size) for size in value.shape]
    return f"{str(value.dtype).removeprefix('torch.')} {shape}".replace("'", "")

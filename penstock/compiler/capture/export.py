"""A PyTorch model -> a graph: ``torch.export``, once.

The result is an ``fx.GraphModule`` whose parameters, buffers and constants are ``get_attr`` nodes
and whose operators are ATen's as the model called them: composite ones (linear, layer_norm,
scaled_dot_product_attention …) stay whole.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorDeviceMismatchError
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from penstock.compiler.capture import covariances, guards
from penstock.compiler.capture.conversions import UNCONVERTED, ConversionsOfNothing
from penstock.compiler.capture.data_attribute import (
    SYMPTOM,
    UNSEEN,
    DataIsDetached,
    NoAssignments,
)
from penstock.compiler.capture.data_sizes import bounds_by_data
from penstock.compiler.capture.dynamo import independent_of_other_models
from penstock.compiler.capture.examples import widened
from penstock.compiler.capture.failed_calls import failed_calls_end
from penstock.compiler.capture.failures import in_one_line
from penstock.compiler.capture.forgotten import noting_state
from penstock.compiler.capture.functional import functional
from penstock.compiler.capture.given import (
    load_archive,
    register_dataclasses,
    require_as_exported,
    require_examples_of,
    require_inputs,
    require_module,
    require_one_type,
    require_shapes,
    require_values,
    scripted,
    several_devices,
    unwrapped,
)
from penstock.compiler.capture.looks import Looks
from penstock.compiler.capture.older_quantization import quantized_otherwise
from penstock.compiler.capture.quietly import quietly
from penstock.compiler.capture.stand_ins import called_as_it_is, without_stand_ins
from penstock.compiler.capture.unasked import unasked
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.control_flow import all_graphs, graph_names, is_control_flow
from penstock.compiler.fx.layout import is_static, shape_of
from penstock.compiler.fx.model_size import Weights, weights_of
from penstock.compiler.fx.origins import adopt_added, describe_origin
from penstock.compiler.rewrite import (
    fake_quantize,
    fold_constants,
    inline_regions,
    quantized_tensors,
)
from penstock.compiler.rewrite.functionalize import needs_tracing
from penstock.errors import ExportError, InputError, UnsupportedError


@dataclass
class Captured:
    """A captured model. ``module.graph`` has one placeholder for each leaf of the inputs.

    ``input_structure`` / ``output_structure`` are the pytree specs of ``(args, kwargs)`` and of
    the result; ``bounds`` the upper bounds of the dynamic dimensions' symbols, ``least`` the lower
    ones; ``weights`` says how large the model's own constants are; ``exported`` is what
    ``torch.export`` made, if it was to be kept; ``forgotten`` names the attributes in which the
    model remembers what the program does not.
    """

    module: GraphModule
    input_structure: pytree.TreeSpec
    output_structure: pytree.TreeSpec
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    bounds: dict[Any, int]
    least: dict[Any, int] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    exported: ExportedProgram | None = None
    forgotten: tuple[str, ...] = ()

    @property
    def placeholders(self) -> list[Node]:
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]


def capture(
    model: torch.nn.Module | ExportedProgram | str | Path,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    keep: bool = False,
) -> Captured:
    """Captures ``model``: a module with example inputs, a program that ``torch.export`` made, or
    the path of a ``.pt2`` archive (which carry their example inputs). ``keep`` the exported
    program.

    Raises :class:`ExportError` where ``torch.export`` cannot capture the model, and
    :class:`InputError` where example inputs are missing.
    """
    forgotten: list[str] = []
    with noting_state(model, forgotten):
        program = _exported(model, args, kwargs, dynamic_shapes)
    if program.example_inputs is None and args is None:
        raise InputError("the exported program carries no example inputs: pass them as args")
    example_args, example_kwargs = (
        (tuple(args), dict(kwargs or {})) if args is not None else program.example_inputs
    )
    require_examples_of(program, example_args, example_kwargs)
    module = _module(program)
    _require_tensors(module)
    require_values(module)
    require_one_type(module)
    weights = weights_of(module)
    _trace_bodies(module)
    if _needs_tracing(module):
        # Writes to constants are carried out here and now; for the others, only torch's own
        # functionalization can follow a write through a view, at the price of another trace.
        fold_constants.apply(module)
        if _needs_tracing(module):
            module = _module(functional(program))
    for part in all_graphs(module):
        adopt_added(part)
    bounds = _upper_bounds(program)
    bounds.update(bounds_by_data(module, bounds))
    _require_bounds(module, bounds)
    spec = program.call_spec
    return Captured(
        module=module,
        input_structure=spec.in_spec,
        output_structure=spec.out_spec,
        args=tuple(example_args),
        kwargs=dict(example_kwargs),
        bounds=bounds,
        least=_lower_bounds(program),
        weights=weights,
        exported=program if keep else None,
        forgotten=tuple(forgotten),
    )


def _needs_tracing(module: GraphModule) -> bool:
    return any(needs_tracing(node) for part in all_graphs(module) for node in part.graph.nodes)


def _trace_bodies(module: GraphModule) -> None:
    """Branches and loops that write through views become functional, each by itself: of whole
    models with such ones torch cannot make another trace."""
    for node in module.graph.nodes:
        for name in graph_names(node) if is_control_flow(node) else ():
            body = module.get_submodule(str(name.target))
            assert isinstance(body, GraphModule)
            _trace_bodies(body)
            if any(map(needs_tracing, body.graph.nodes)):
                inputs = [n.meta["val"] for n in body.graph.nodes if n.op == "placeholder"]
                module.set_submodule(
                    str(name.target), _module(functional(_exported_body(body, inputs)))
                )


def _exported_body(body: GraphModule, inputs: Sequence[Any]) -> ExportedProgram:
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    if len(tensors) < len(inputs) or not all(is_static(shape_of(value)) for value in tensors):
        raise ExportError(
            "a branch or loop writes through a view of a tensor of dynamic size; "
            "compute a new tensor there, with torch.where or torch.cat"
        )
    examples = tuple(torch.zeros(value.shape, dtype=value.dtype) for value in tensors)
    with quietly(), independent_of_other_models():
        return torch.export.export(body, examples, strict=False)


def _module(program: ExportedProgram) -> GraphModule:
    module = program.module(check_guards=False)
    if not isinstance(module, GraphModule):
        raise ExportError(f"torch.export gave a {type(module).__name__}, not a graph")
    _own_bodies(module)
    inline_regions.apply(module)
    for part in all_graphs(module):
        quantized_tensors.apply(part)
        fake_quantize.apply(part)
        _register_names(part)
    return module


def _own_bodies(module: GraphModule) -> None:
    """``ExportedProgram.module`` copies the model's graph, but not those of branches, loops and
    regions: what is changed here must not be the caller's, who may lower the program again."""
    for name, body in list(module.named_children()):
        if isinstance(body, GraphModule):
            own = GraphModule(body, copy.deepcopy(body.graph))
            setattr(module, name, own)
            _own_bodies(own)


def _register_names(module: GraphModule) -> None:
    """Names that torch.export changed are not taken again by nodes to come."""
    for node in module.graph.nodes:
        module.graph._graph_namespace.create_name(node.name, None)


def _exported(
    model: torch.nn.Module | ExportedProgram | str | Path,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> ExportedProgram:
    if isinstance(model, (ExportedProgram, str, Path)):
        require_as_exported(args, kwargs, dynamic_shapes)
        return model if isinstance(model, ExportedProgram) else load_archive(model)
    require_module(model)
    model = unwrapped(model)
    require_inputs(model, args, kwargs)
    require_shapes(dynamic_shapes)
    assert args is not None
    register_dataclasses((args, kwargs))
    name = type(model).__name__
    distinct = _distinct((tuple(args), dict(kwargs or {})))
    (distinct_args, distinct_kwargs), widening = widened(model, distinct, dynamic_shapes)

    def export() -> ExportedProgram:
        with (
            torch.no_grad(), quietly(), _evaluating(model), unasked(),
            independent_of_other_models(), NoAssignments(), failed_calls_end(),
        ):  # fmt: skip
            return torch.export.export(
                model,
                distinct_args,
                distinct_kwargs,
                dynamic_shapes=dynamic_shapes,
                strict=False,
            )

    def call() -> Any:
        with torch.no_grad(), quietly(), _evaluating(model):
            return model(*distinct_args, **distinct_kwargs)

    fixed: list[str] = []

    def attempt() -> ExportedProgram:
        try:
            return without_stand_ins(model, export, call)
        except RuntimeError as error:
            if SYMPTOM in str(error):
                with DataIsDetached():
                    return export()
            if covariances.SYMPTOM in str(error):
                with covariances.Covariances():
                    return export()
            if UNCONVERTED in str(error):
                with ConversionsOfNothing():
                    return export()
            if guards.SYMPTOM in str(error):
                with guards.answered_by_trying(fixed):
                    try:
                        return export()
                    except Exception as other:
                        raise (other if guards.SYMPTOM in str(other) else error) from None
            raise

    try:
        try:
            return attempt()
        except ExportError:
            raise
        except Exception:
            looks, named = Looks(model), False
            with contextlib.suppress(Exception):
                result = called_as_it_is(model, lambda: looks.watch(call))
                named = register_dataclasses(result)
            if not looks and not named:
                raise
            with looks.again():
                return attempt()
    except ExportError:
        raise
    except Exception as error:
        text = f"torch.export cannot capture {name}: {in_one_line(error)}"
        if fixed:
            text += (
                f"; a size becomes a constant at {_some(list(dict.fromkeys(fixed)))} "
                "(by len or int, say; x.shape[0] stays dynamic)"
            )
        devices = several_devices(model, distinct)
        otherwise = quantized_otherwise(model) or scripted(model)
        if otherwise is not None:
            text = f"torch.export cannot capture {name}: {otherwise}"
        elif SYMPTOM in str(error):
            text = f"torch.export cannot capture {name}: {UNSEEN}"
        elif isinstance(error, FakeTensorDeviceMismatchError) and devices is not None:
            text = f"torch.export cannot capture {name}: {devices}"
        if widening:
            text += (
                f"; examples of size 0 or 1 in dynamic dimensions were widened ({_some(widening)}),"
                " since torch.export takes those sizes for fixed: give larger ones if that is amiss"
            )
        raise ExportError(text) from error


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode, each of its modules as it was afterwards."""
    before = {module: module.training for module in model.modules()}
    if model.training:
        with contextlib.suppress(NotImplementedError):  # what convert_pt2e gives, say
            model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _distinct(inputs: Any) -> Any:
    """``inputs`` with a copy of every tensor that stands there more than once: torch.export takes
    such inputs for one, and the program would read only the last of them."""
    seen: set[int] = set()

    def once(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) in seen:
                return value.detach().clone()
            seen.add(id(value))
        return value

    return pytree.tree_map(once, inputs)


def _require_tensors(module: GraphModule) -> None:
    """Raises :class:`UnsupportedError` for what a program cannot hold."""
    for node in module.graph.nodes:
        value = node.meta.get("val")
        constant = node.op == "get_attr" and isinstance(value, torch.Tensor)
        if constant and isinstance(attribute(module, str(node.target)), FakeTensor):
            raise ExportError(f"torch.export cannot capture the model: {UNSEEN}")
        if isinstance(value, torch.Tensor) and value.dtype is torch.complex32:
            raise UnsupportedError(
                f"{node.name} is of type complex32, which has no kernels; use complex64"
            )
        if isinstance(value, torch.Tensor) and value.layout is not torch.strided:
            kind = str(value.layout).removeprefix("torch.")
            raise UnsupportedError(
                f"{node.name} is a {kind} tensor, and programs hold dense ones; keep it as "
                f"x.to_dense(){describe_origin(node) if node.op == 'call_function' else ''}"
            )
        held = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(held, torch.Generator):
            raise UnsupportedError(
                "the model draws from a torch.Generator, which a program cannot hold; draw in "
                "__init__ and keep the numbers as a buffer, or draw without a generator"
            )


def _require_bounds(module: GraphModule, bounds: Mapping[Any, int]) -> None:
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for position, size in enumerate(value.shape):
            if not isinstance(size, torch.SymInt):
                continue
            if not set(size.node.expr.free_symbols) <= set(bounds):
                raise InputError(
                    f"dimension {position} of input {node.name} is dynamic and has no upper bound; "
                    'give one: torch.export.Dim("name", max=...)'
                )


def _upper_bounds(program: ExportedProgram) -> dict[Any, int]:
    bounds: dict[Any, int] = {}
    for symbol, values in program.range_constraints.items():
        if isinstance(values.upper, sympy.Integer) and values.upper < 2**31:
            bounds[symbol] = int(values.upper)
    return bounds


def _lower_bounds(program: ExportedProgram) -> dict[Any, int]:
    return {
        symbol: int(values.lower)
        for symbol, values in program.range_constraints.items()
        if isinstance(values.lower, sympy.Integer)
    }

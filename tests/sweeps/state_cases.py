"""Writes of every kind to buffers and inputs, and the in-place forms of the operators' cases."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from operator_cases import Case
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.fx import GraphModule, Node
from torch.nn import functional as F

Call = tuple[Tensor, ...]


class Holder(nn.Module):
    """A function of the module, for its buffers, and the inputs."""

    def __init__(self, function: Callable[..., Any] | None) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("v", torch.arange(4.0))
        self.register_buffer("m", torch.zeros(3, 4))
        self.register_buffer("w", torch.linspace(-1, 1, 16).reshape(4, 4))
        self.register_buffer("n", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mask", torch.zeros(4, dtype=torch.bool))
        self.register_buffer("tied", self.v, persistent=False)
        self.register_buffer("cache", torch.zeros(1, 2, 6, 4))

    def forward(self, *args: Tensor) -> Any:
        assert self.function is not None
        return self.function(self, *args)


KINDS: dict[str, Callable[[], tuple[Callable[..., Any], list[Call]]]] = {}


def kind(*shapes: tuple[int, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a way to write; it is called four times with random inputs of ``shapes``."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def make() -> tuple[Callable[..., Any], list[Call]]:
            return function, [tuple(map(torch.randn, shapes)) for _ in range(4)]

        KINDS[function.__name__] = make
        return function

    return register


def places(
    count: int, most: int, *shapes: tuple[int, ...]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same, with ``count`` different indices below ``most`` as the first input."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def make() -> tuple[Callable[..., Any], list[Call]]:
            return function, [
                (torch.randperm(most)[:count], *map(torch.randn, shapes)) for _ in range(4)
            ]

        KINDS[function.__name__] = make
        return function

    return register


# --- buffers -----------------------------------------------------------------------------------


@kind((4,))
def copy_then_read(m: Any, x: Tensor) -> Any:
    m.v.copy_(0.9 * m.v + x)
    return m.v * 2


@kind((3, 4))
def copy_between_products(m: Any, x: Tensor) -> Any:
    before = x @ m.w
    m.w.copy_(F.relu(m.w) * 0.5 + before.mean())
    return before, x @ m.w


@kind((4,))
def old_and_new(m: Any, x: Tensor) -> Any:
    old = m.v.clone()
    m.v.add_(x)
    return old, m.v, old * m.v


@kind((4,))
def several_writes(m: Any, x: Tensor) -> Any:
    m.v.mul_(0.5)
    first = m.v + 1
    m.v.add_(x)
    second = torch.cumsum(m.v, 0)
    m.v.clamp_(-1, 1)
    return first, second, m.v.exp()


@kind((4,))
def assigned(m: Any, x: Tensor) -> Any:
    m.v = m.v * 0.5 + x
    return m.v + 1


@kind((4,))
def alias_of_a_buffer(m: Any, x: Tensor) -> Any:
    name = m.v
    m.v.add_(1)
    between = name * 2
    name.add_(x)
    return name, between, m.v


@kind((4,))
def tied_buffers(m: Any, x: Tensor) -> Any:
    m.v.add_(x)
    doubled = m.tied * 2
    m.tied.mul_(0.5)
    return doubled, m.v, m.tied + 1


@kind((4,))
def exchange(m: Any, x: Tensor) -> Any:
    a, b = m.v.clone(), m.w[0].clone()
    m.v.copy_(b)
    m.w[0].copy_(a + x)
    return a, b * 1


@kind((4,))
def broadcast_and_converted(m: Any, x: Tensor) -> Any:
    m.m.copy_(x)
    m.mask.copy_(x > 0)
    m.n.copy_(x.argmax())
    return m.m.sum(0), m.mask, m.n


@kind((4,))
def counters(m: Any, x: Tensor) -> Any:
    m.n.add_(1)
    m.mask |= x > 1
    m.v += m.n
    return m.n, m.mask, m.v * x


@kind((4,))
def rows_and_columns(m: Any, x: Tensor) -> Any:
    m.m[0] = x
    m.m[:, 1] = x[:3]
    m.m[1:, 2:].mul_(0.5)
    m.m[-1].add_(x)
    return m.m.sum(1), F.relu(m.m)


@kind((4,))
def through_views(m: Any, x: Tensor) -> Any:
    m.m.view(-1)[3:7].copy_(x)
    m.w.t()[1].add_(x)
    m.w.diagonal().fill_(0.5)
    return m.m * 2, m.w @ x


@places(2, 6, (1, 2, 2, 4))
def cache_by_index_put(m: Any, at: Tensor, x: Tensor) -> Any:
    m.cache[:, :, at] = x
    return torch.softmax(m.cache @ x.transpose(2, 3), 2), m.cache.sum(2)


@places(2, 6, (1, 2, 2, 4))
def cache_by_index_copy(m: Any, at: Tensor, x: Tensor) -> Any:
    before = m.cache.mean(2)
    m.cache.index_copy_(2, at, x)
    return before, F.relu(m.cache) @ x.transpose(2, 3)


@places(2, 3, (2, 4))
def index_writes(m: Any, at: Tensor, x: Tensor) -> Any:
    m.m.index_put_((at,), x)
    m.m.index_put_((at,), x, accumulate=True)
    first = m.m * 1
    m.m.index_add_(0, at, x)
    m.m.index_fill_(0, at[:1], 0.25)
    m.v.scatter_(0, at, x[0, :2])
    m.v.scatter_add_(0, at, x[1, :2])
    return first, m.m, m.v


@kind((4,))
def masked_writes(m: Any, x: Tensor) -> Any:
    m.v.masked_fill_(x > 0.5, 7.0)
    m.v[x < 0] = -1.0
    m.v.copy_(torch.where(x > 1, x, m.v))
    return m.v + x


@kind((4,))
def written_by_choice(m: Any, x: Tensor) -> Any:
    m.v.copy_(torch.where(x.sum() > 0, x, m.v))
    m.n.add_((x.sum() > 0).to(torch.int64))
    return m.v, m.n


@kind((4,))
def filled_and_zeroed(m: Any, x: Tensor) -> Any:
    seen = m.v * x
    m.v.zero_()
    m.w.fill_(0.5)
    m.v.copy_(m.w @ x)
    return seen, m.v


@kind((4,))
def out_argument(m: Any, x: Tensor) -> Any:
    torch.mul(x, 2, out=m.v)
    return m.v + 1


@kind((3, 4))
def running_statistics(m: Any, x: Tensor) -> Any:
    return F.batch_norm(x, m.v, m.w[0].abs() + 1, training=True), m.v * 1


@kind((4,))
def never_read(m: Any, x: Tensor) -> Any:
    m.v.copy_(x)
    return x + 1


@kind((4,))
def only_returned(m: Any, x: Tensor) -> Any:
    m.v.add_(x)
    return m.v


@kind((4,))
def unchanged(m: Any, x: Tensor) -> Any:
    m.v.mul_(1)
    return m.v + x


@kind((1, 4), (4,))
def a_layer_between(m: Any, x: Tensor, y: Tensor) -> Any:
    h = torch.tanh(x @ m.w + m.m[:1])
    m.m[:1].copy_(h)
    h = torch.cumsum(h, 1)
    m.m[1:2].copy_(h * y)
    return (m.m @ m.w).sum(0)


# --- inputs ------------------------------------------------------------------------------------


@kind((3, 4), (4,))
def input_row(m: Any, x: Tensor, y: Tensor) -> Any:
    x[0] = y
    return x * 2


@kind((3, 4), (4,))
def input_row_last(m: Any, x: Tensor, y: Tensor) -> Any:
    x[1].add_(y)
    return y + 1


@kind((3, 4), (4,))
def input_added_to(m: Any, x: Tensor, y: Tensor) -> Any:
    x.add_(y)
    return x.relu() @ m.w


@kind((2, 4))
def input_activated(m: Any, x: Tensor) -> Any:
    return F.relu(x, inplace=True) @ m.w


@kind((3, 4))
def input_through_nothing(m: Any, x: Tensor) -> Any:
    """Dropout in evaluation mode gives its input itself."""
    F.dropout(x, training=False)[0] = 0.5
    hidden = x * 2
    F.dropout(hidden, training=False).add_(1)
    F.dropout(m.v, training=False).mul_(2)
    return hidden, hidden @ m.w, m.v + 1


@kind((4,), (4,))
def inputs_exchanged(m: Any, x: Tensor, y: Tensor) -> Any:
    old = x.clone()
    x.copy_(y)
    y.copy_(old)
    return {"old": old, "sum": x + y}


@kind((4,), (4,))
def input_from_a_buffer(m: Any, x: Tensor, y: Tensor) -> Any:
    old = m.v.clone()
    m.v.copy_(x)
    x.copy_(old)
    y.mul_(m.v)
    return x, y, old


@kind((4,))
def input_returned(m: Any, x: Tensor) -> Any:
    x.mul_(3)
    return x


@kind((2, 4), (4,))
def input_alone(m: Any, x: Tensor, y: Tensor) -> Any:
    x.flatten().copy_(torch.cat([y, y * 2]))
    return y.sum()


@places(2, 6, (1, 2, 6, 4), (1, 2, 2, 4))
def input_cache(m: Any, at: Tensor, cache: Tensor, x: Tensor) -> Any:
    cache.index_copy_(2, at, x)
    return torch.softmax(x @ cache.transpose(2, 3), -1) @ cache


# --- from branches and loops ---------------------------------------------------------------------


@kind((4,), (4,))
def input_from_a_loop(m: Any, x: Tensor, y: Tensor) -> Any:
    (z,) = while_loop(lambda z: z.sum() < 20, lambda z: (z.abs() + 1,), (x.clone(),))
    x.copy_(z)
    return y + x


@kind((4,))
def buffer_from_a_branch(m: Any, x: Tensor) -> Any:
    m.v.copy_(torch.cond(x.sum() > 0, lambda v, x: v + x, lambda v, x: v * 0.5, (m.v, x)))
    return m.v + 1


# --- the operators' in-place forms ---------------------------------------------------------------


def in_place_forms(case: Case) -> Iterator[tuple[str, nn.Module, Call]]:
    """The case's program with one of its operators in place on an input, and on a buffer that
    begins as the input; for each operator that has such a form, and an input of the result's shape
    and type as its first argument."""
    module = case.function if isinstance(case.function, nn.Module) else _Function(case.function)
    with torch.no_grad():
        captured = torch.export.export(module.eval(), case.inputs).module(check_guards=False)
    assert isinstance(captured, GraphModule)
    done: set[object] = set()
    for node in list(captured.graph.nodes):
        form = _in_place(node)
        if form is None or form in done:
            continue
        done.add(form)
        for what in ("input", "buffer"):
            changed = copy.deepcopy(captured)
            (twin,) = (n for n in changed.graph.nodes if n.name == node.name)
            twin.target = form
            first = twin.args[0]
            if what == "buffer":
                position = _inputs(changed).index(first)
                changed.register_buffer("held", case.inputs[position].detach().clone())
                with changed.graph.inserting_before(first):
                    held = changed.graph.get_attr("held")
                twin.args = (held, *twin.args[1:])
            changed.recompile()
            yield what, changed, case.inputs


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _inputs(module: GraphModule) -> list[Node]:
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def _in_place(node: Node) -> Any:
    """The in-place form of the node's operator, if its first argument is an input like its
    result."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return None
    first, value = node.args[0], node.meta.get("val")
    if not isinstance(first, Node) or first.op != "placeholder":
        return None
    before = first.meta["val"]
    if not isinstance(value, Tensor) or (value.shape, value.dtype) != (before.shape, before.dtype):
        return None
    packet = getattr(torch.ops.aten, f"{node.target._schema.name.split('::')[1]}_", None)
    if packet is None or node.target._overloadname not in packet.overloads():
        return None
    return getattr(packet, node.target._overloadname)

"""Branches and loops: each kind, nested, with state, sizes known at run time alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from emit_harness import Case
from torch import Tensor, nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim
from torch.nn import functional as F

MODES = (("", {}), ("_kernels", {"delegate": False}))


class Model(nn.Module):
    """A function of the module, for its layers and buffers, and the inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.cell = nn.GRUCell(4, 4)
        self.register_buffer("k", torch.linspace(-1, 1, 4))
        self.register_buffer("count", torch.zeros(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


CASES: list[Case] = []


def control(
    *shapes: Any, dynamic: Any = None, stock: bool = True, modes: Any = MODES
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a model of the function. Shapes stand for random tensors; one more tuple of them
    makes one more call. Each is also made with its sign changed: the other way at branches."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def make() -> Any:
            calls = []
            for one in shapes:
                inputs = tuple(torch.randn(a) if isinstance(a, tuple) else a for a in one)
                other = tuple(
                    -a if isinstance(a, Tensor) and a.is_floating_point() else a for a in inputs
                )
                calls += [inputs, other]
            return Model(function), [*calls, calls[0]]

        for mode, options in modes:
            CASES.append(
                Case(
                    f"control_{function.__name__}{mode}", make,
                    {**options, "dynamic_shapes": dynamic and {"args": dynamic}},
                    stock=stock,
                )
            )  # fmt: skip
        return function

    return register


ROWS, COLUMNS = Dim("rows", min=2, max=9), Dim("columns", min=2, max=7)


# --- branches ------------------------------------------------------------------------------------


@control(((2, 4),))
def branches_with_layers(m: Any, x: Tensor) -> Any:
    return torch.cond(
        x.sum() > 0, lambda x: F.relu(m.a(x)) + 1, lambda x: m.b(m.a(x) + m.k).sigmoid(), (x,)
    )


@control(((2, 4),))
def before_and_after(m: Any, x: Tensor) -> Any:
    h = F.relu(m.a(x))
    y = torch.cond(x.mean() > 0, lambda h: m.b(h), lambda h: h * 2, (h,))
    return m.a(y) + h, y


@control(((2, 4), (4,)))
def several_results(m: Any, x: Tensor, y: Tensor) -> Any:
    def yes(x: Tensor, y: Tensor) -> Any:
        values, places = x.topk(2)
        return x * y, values, places, x.sum()

    def no(x: Tensor, y: Tensor) -> Any:
        values, places = (-x).topk(2)
        return x + y, values, places, x.amax()

    a, b, c, d = torch.cond(y.sum() > 0, yes, no, (x, y))
    return {"a": a, "b": [b, c]}, d * 2


@control(((4,),))
def operands_and_constants_as_results(m: Any, x: Tensor) -> Any:
    return torch.cond(
        x.sum() > 0, lambda x: (x.clone(), m.k.clone()), lambda x: (m.k * 1, x.clone()), (x,)
    )


@control(((2, 4),))
def branches_in_branches(m: Any, x: Tensor) -> Any:
    def outer(x: Tensor) -> Tensor:
        y = m.a(x)
        return torch.cond(y.sum() > 0, lambda y: m.b(y) + m.k, lambda y: y.exp(), (y,))

    return torch.cond(x.sum() > 0, outer, lambda x: x.tanh(), (x,))


@control(((2, 4),))
def branches_one_after_the_other(m: Any, x: Tensor) -> Any:
    y = torch.cond(x[0].sum() > 0, lambda x: m.a(x), lambda x: m.b(x), (x,))
    z = torch.cond(x[1].sum() > 0, lambda x, y: x + y, lambda x, y: x - y, (x, y))
    return y, z, torch.cond((y - z).sum() > 0, lambda z: z * 2, lambda z: m.a(z), (z,))


@control(((1, 3, 6, 5),))
def branches_of_pictures(m: Any, x: Tensor) -> Any:
    return torch.cond(
        x.mean() > 0,
        lambda x: F.hardswish(m.convolution(x)),
        lambda x: m.convolution(F.relu(m.convolution(x))) + x,
        (x,),
    )


@control(((2, 4),))
def branches_of_other_types(m: Any, x: Tensor) -> Any:
    return torch.cond(
        x.sum() > 0, lambda x: ((x > 0.3), x.to(torch.int32)),
        lambda x: ((x < 0), (x * 2).to(torch.int32)), (x,),
    )  # fmt: skip


@control(((5, 4),), ((2, 4),), ((9, 4),), dynamic=({0: ROWS},))
def branch_by_size(m: Any, x: Tensor) -> Any:
    return torch.cond(x.shape[0] > 3, lambda x: m.a(x), lambda x: x * 2, (x,))


@control(((5, 4),), ((2, 4),), ((9, 4),), dynamic=({0: ROWS},))
def branches_of_dynamic_rows(m: Any, x: Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda x: m.a(x).relu(), lambda x: x.flip(0), (x,))


@control(((5, 4),))
def branches_of_two_sizes(m: Any, x: Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda x: x[:2] * 2, lambda x: m.a(x), (x,))


@control((torch.tensor(True), (4,)), (torch.tensor(False), (4,)))
def branch_by_an_input(m: Any, p: Tensor, x: Tensor) -> Any:
    return torch.cond(p, lambda x: m.a(x), lambda x: x - 1, (x,))


@control(((4,),))
def without_gradients(m: Any, x: Tensor) -> Any:
    def yes(x: Tensor) -> Tensor:
        with torch.no_grad():
            return m.a(x)

    return torch.cond(x.sum() > 0, yes, lambda x: x + 1, (x,))


@control(((4,),))
def writes_in_a_branch(m: Any, x: Tensor) -> Any:
    def yes(x: Tensor) -> Tensor:
        y = x * 2
        y[1:3] = 0.5
        y.add_(1)
        return y

    return torch.cond(x.sum() > 0, yes, lambda x: x + 1, (x,))


# --- loops ---------------------------------------------------------------------------------------


@control((torch.tensor(3), (2, 4)), (torch.tensor(0), (2, 4)), (torch.tensor(7), (2, 4)))
def repeated_layer(m: Any, n: Tensor, x: Tensor) -> Any:
    def body(i: Tensor, x: Tensor) -> Any:
        return i + 1, torch.tanh(m.a(x)) + m.k

    return while_loop(lambda i, x: i < n, body, (torch.tensor(0), x))


@control(((4,),))
def until_it_is_large(m: Any, x: Tensor) -> Any:
    y = x.abs() + 0.1
    (z,) = while_loop(lambda y: y.sum() < 100, lambda y: (y * 1.5 + 0.1,), (y,))
    return z, m.a(z) + y


@control(((4,), (4,)))
def exchanged(m: Any, x: Tensor, y: Tensor) -> Any:
    return while_loop(
        lambda i, a, b, c: i < 5, lambda i, a, b, c: (i + 1, b.clone(), c + 1, a.clone()),
        (torch.tensor(0), x, y, m.k.clone()),
    )  # fmt: skip


@control(((4,),))
def counted_by_a_number(m: Any, x: Tensor) -> Any:
    return while_loop(lambda i, x: i < 4, lambda i, x: (i + 1, m.a(x) * 0.5), (0, x))


@control(((5, 4),), ((2, 4),), ((9, 4),), dynamic=({0: ROWS},))
def as_often_as_there_are_rows(m: Any, x: Tensor) -> Any:
    n = x.shape[0]
    return while_loop(lambda i, x: i < n, lambda i, x: (i + 1, m.a(x) * 0.5), (0, x))[1]


@control(((2, 4),))
def loops_in_loops(m: Any, x: Tensor) -> Any:
    def outer(i: Tensor, x: Tensor) -> Any:
        _, y = while_loop(
            lambda j, y: j < i + 1, lambda j, y: (j + 1, m.a(y).tanh()), (torch.zeros_like(i), x)
        )
        return i + 1, y + x

    return while_loop(lambda i, x: i < 3, outer, (torch.tensor(0), x))


@control(((2, 4),))
def branches_in_a_loop(m: Any, x: Tensor) -> Any:
    h = m.b(x)

    def body(i: Tensor, x: Tensor) -> Any:
        y = torch.cond(x.sum() > 0, lambda x: m.a(x) - 1, lambda x: m.b(x) + h, (x,))
        return i + 1, y

    return (*while_loop(lambda i, x: i < 6, body, (torch.tensor(0), x)), h * 2)


@control(((2, 4),))
def a_loop_in_a_branch(m: Any, x: Tensor) -> Any:
    def yes(x: Tensor) -> Tensor:
        return while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, m.a(x)), (torch.tensor(0), x.clone())
        )[1]

    return torch.cond(x.sum() > 0, yes, lambda x: x * 3, (x,))


# --- loops over rows -----------------------------------------------------------------------------


@control(((5, 4),))
def scanned(m: Any, x: Tensor) -> Any:
    return scan(lambda c, y: (m.a(c) * 0.5 + y, (c + y).sin()), torch.zeros(4), x)


@control(((5, 4),), ((2, 4),), ((9, 4),), dynamic=({0: ROWS},))
def scanned_dynamic_rows(m: Any, x: Tensor) -> Any:
    carry, rows = scan(lambda c, y: (m.a(c) * 0.5 + y, c + y), m.k.clone(), x)
    return carry * 2, m.b(rows), rows


@control(
    ((5, 3),), ((2, 7),), ((9, 2),), ((3, 6),), dynamic=({0: ROWS, 1: COLUMNS},)
)  # fmt: skip
def scanned_dynamic_columns(m: Any, x: Tensor) -> Any:
    return scan(lambda c, y: (c + y, F.relu(c * y)), torch.zeros_like(x[0]), x)


@control(((4, 5),))
def scanned_backwards(m: Any, x: Tensor) -> Any:
    return scan(
        lambda c, y: (c * 0.5 + y, c - y), torch.zeros(4), x, dim=1, reverse=True
    )  # fmt: skip


@control(((5, 2, 4), (5, 4)))
def scanned_trees(m: Any, x: Tensor, y: Tensor) -> Any:
    def step(carry: Any, row: Any) -> Any:
        h = m.cell(row["x"], carry["h"])
        return {"h": h, "n": carry["n"] + 1}, (h.sum(0) + row["y"], carry["n"].clone())

    first = {"h": torch.zeros(2, 4), "n": torch.tensor(0)}
    return scan(step, first, {"x": x, "y": y})


@control(((5, 2, 4),))
def exchanged_by_rows(m: Any, x: Tensor) -> Any:
    def step(carry: Any, row: Tensor) -> Any:
        a, b = carry
        return (b.clone(), a + row), (a.clone(), b * 1)

    return scan(step, (torch.zeros(2, 4), torch.ones(2, 4)), x)


@control(((5, 4),))
def branches_by_rows(m: Any, x: Tensor) -> Any:
    def step(c: Tensor, y: Tensor) -> Any:
        d = torch.cond(y.sum() > 0, lambda c, y: m.a(c) + y, lambda c, y: c - y, (c, y))
        return d, d * 2

    return scan(step, torch.zeros(4), x)


@control(((3, 4, 4),))
def scans_in_scans(m: Any, x: Tensor) -> Any:
    def outer(c: Tensor, rows: Tensor) -> Any:
        return scan(lambda d, y: (d * 0.5 + y, m.a(d)), c, rows)

    return scan(outer, torch.zeros(4), x)


@control(((3, 4), (4,)))
def mapped(m: Any, x: Tensor, y: Tensor) -> Any:
    return map_rows(lambda row, y: (m.a(row) + y, row * 2), x, y)


@control(((5, 4),), ((2, 4),), ((9, 4),), dynamic=({0: ROWS},))
def mapped_dynamic_rows(m: Any, x: Tensor) -> Any:
    rows = map_rows(lambda row: m.a(row).relu(), x)
    return m.b(rows) + x


@control(((4, 2, 3),))
def mapped_in_maps(m: Any, x: Tensor) -> Any:
    return map_rows(lambda rows: map_rows(lambda row: row.softmax(0), rows) + 1, x)


@control(((8, 4),))
def scanned_in_pairs(m: Any, x: Tensor) -> Any:
    return associative_scan(lambda a, b: a * 0.5 + b, x, 0, combine_mode="generic")


@control(((7,),))
def scanned_in_pairs_of_numbers(m: Any, x: Tensor) -> Any:
    return associative_scan(lambda a, b: (a + b).clamp(max=2.5), x, 0, combine_mode="generic")


# --- state ---------------------------------------------------------------------------------------


@control(((4,),))
def state_around_branches(m: Any, x: Tensor) -> Any:
    m.count.add_(x)
    y = torch.cond(m.count.sum() > 0, lambda c, x: m.a(c) + x, lambda c, x: c - x, (m.count, x))
    m.count.copy_(y)
    m.steps.add_(1)
    return y, m.steps, m.count * 2


@control(((4,),))
def state_from_branches(m: Any, x: Tensor) -> Any:
    new = torch.cond(x.sum() > 0, lambda c, x: c + x, lambda c, x: c * 0.5, (m.count, x))
    m.count.copy_(new)
    return m.count + 1


@control(((5, 4),))
def state_from_rows(m: Any, x: Tensor) -> Any:
    h, rows = scan(lambda c, y: (m.cell(y[None], c), c.clone()), m.count.clone()[None], x)
    m.count.copy_(h[0])
    return rows, m.count * 1


#: A part that runs with all tests; the sweep has the whole.
SOME = [case for case in CASES if not case.name.endswith("_kernels")][::5] + CASES[3::24]

"""Which column feeds which input, and how many rows a call takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.batch.columns import Feed, check_type, depth, holds_images, holds_numbers
from penstock.batch.results import LABELS, LABELS_TYPE, Result
from penstock.errors import InputError
from penstock.pictures import normalization_of
from penstock.runtime.method import Method
from penstock.runtime.program import LoadedProgram
from penstock.runtime.specs import ScalarSpec, Spec, TensorSpec, listed

#: Rows of one call of a program that takes any number of them. More are hardly faster on a CPU,
#: and the memory for intermediate values grows with them.
USUAL_ROWS = 16
#: A step is as many calls as make so many bytes of inputs.
STEP_BYTES, MAX_CALLS = 8 << 20, 64


@dataclass(frozen=True)
class Plan:
    """How the rows of a table become calls of a method, and its outputs columns."""

    #: One for each input; a fixed scalar, which is what it is, has none.
    feeds: tuple[Feed | None, ...]
    results: tuple[Result, ...]
    #: The columns that are handed on.
    keep: tuple[str, ...]
    #: How many rows a call takes, and whether it takes no fewer.
    rows: int
    exact: bool
    labels: bool

    @property
    def step(self) -> int:
        """How many rows are made inputs at a time: some calls' worth, if they are not large."""
        row = sum(_bytes(feed.row) for feed in self.feeds if feed is not None)
        calls = STEP_BYTES // max(1, row) // self.rows
        return self.rows * min(max(1, calls), MAX_CALLS)

    @property
    def row_bytes(self) -> int:
        """What a row takes at most in tables, as a column of the input and of the answers. Images
        are encoded there, so that only the file knows."""
        columns = [feed.row for feed in self.feeds if feed is not None and not feed.images]
        answers = [_row(r.spec) if r.batched else r.spec for r in self.results]
        return sum(map(_bytes, (*columns, *answers)))

    def schema(self, source: Any) -> Any:
        """The schema of the answers to a table of the schema ``source``."""
        schema = pa.schema([source.field(name) for name in self.keep])
        for result in self.results:
            schema = schema.append(pa.field(result.column, result.type))
        return schema.append(pa.field(LABELS, LABELS_TYPE)) if self.labels else schema


def make_plan(
    program: LoadedProgram, method: Method, schema: Any, *, columns: Sequence[str] | None = None,
    keep: Sequence[str] | None = None, batch_size: int | None = None, labels: bool = False,
) -> Plan:  # fmt: skip
    """The plan for tables of the Arrow schema ``schema``; for the arguments see
    :class:`~penstock.batch.scorer.Scorer`.

    Raises InputError for columns that are not there or do not fit, or a batch size that the
    program does not take.
    """
    if method.stateful:
        raise InputError(
            f"the method {method.name!r} remembers from call to call, so that its answers depend on"
            " the order of the rows; such programs are not run in batches"
        )
    free = [i for i, one in enumerate(method.inputs) if _is_free(one)]
    if not free:
        raise InputError(
            f"the method {method.name!r} takes no inputs, so there is nothing to score"
        )
    chosen = _chosen(method, free, schema, columns)
    types = [_type_of(schema, name) for name in chosen]
    specs = [method.inputs[i] for i in free]
    bound, rows, exact = _batch(specs, types, batch_size)
    normalization = normalization_of(program)
    feeds: list[Feed | None] = [None] * len(method.inputs)
    for position, name, type, spec in zip(free, chosen, types, specs, strict=True):
        images = isinstance(spec, TensorSpec) and holds_images(type)
        feed = Feed(name, spec if bound is None else _row(spec), bound is not None, images,
                    normalization)  # fmt: skip
        check_type(type, feed)
        feeds[position] = feed
    names = [f"output_{i}" for i in range(len(method.outputs))]
    results = tuple(
        Result(name, spec, _leads(spec, bound))
        for name, spec in zip(names, method.outputs, strict=True)
    )
    whole = [result for result in results if not result.batched]
    if whole and rows > 1:
        if exact or batch_size is not None:
            raise InputError(
                f"the output {whole[0].column!r}, {whole[0].spec}, has not one entry for each of"
                f" the {rows} rows of a call; leave --batch-size out"
            )
        rows = 1
    kept = _kept(schema, keep, chosen, [*names, LABELS] if labels else names)
    return Plan(tuple(feeds), results, kept, rows, exact, labels)


def _batch(
    specs: Sequence[Spec], types: Sequence[Any], asked: int | None
) -> tuple[int | None, int, bool]:
    """How large the first dimension may be, if it is the batch's; the rows of a call; whether it
    takes no fewer.

    It is the batch's if all inputs have it and the columns do not; where it is fixed, which of the
    columns alone cannot tell, if it is 1 or as large as was asked for.
    """
    if asked is not None and (
        isinstance(asked, bool) or not isinstance(asked, (int, np.integer)) or asked < 1
    ):
        raise InputError(f"the batch size is {asked!r}; give 1 or more")
    bound = _common(specs)
    first = specs[0]
    if bound is None or not isinstance(first, TensorSpec):
        found = None
    elif any(map(holds_images, types)):
        found = bound if len(first.shape) == 4 else None
    elif first.dynamic:
        apart = [depth(t) < len(s.shape) for t, s in zip(types, specs, strict=True)
                 if isinstance(s, TensorSpec)]  # fmt: skip
        found = bound if all(apart) else None
    else:
        found = bound if bound in (1, asked) else None
    if found is None or not isinstance(first, TensorSpec):
        if asked not in (None, 1):
            raise InputError(
                f"the batch size is {asked}, and the program takes one row a call; compile it with"
                " a dynamic first dimension"
            )
        return None, 1, False
    if not first.dynamic:
        if asked not in (None, found):
            raise InputError(
                f"the batch size is {asked}, and the program takes {found} rows a call; compile it"
                " with a dynamic first dimension"
            )
        return found, found, True
    bounded = all(spec.bounded for spec in specs if isinstance(spec, TensorSpec))
    if bounded and asked is not None and asked > found:
        raise InputError(f"the batch size is {asked}, and the program takes {found} rows at most")
    return found, asked or (min(found, USUAL_ROWS) if bounded else USUAL_ROWS), False


def _common(specs: Sequence[Spec]) -> int | None:
    """The first dimension of all of ``specs``, if they have one in common."""
    tensors = [spec for spec in specs if isinstance(spec, TensorSpec)]
    firsts = {(spec.shape[:1], spec.dynamic) for spec in tensors}
    if len(tensors) < len(specs) or len(firsts) != 1 or tensors[0].shape == ():
        return None
    return tensors[0].shape[0]


def _type_of(schema: Any, name: str) -> Any:
    if schema.get_field_index(name) < 0:
        raise InputError(
            f"there is no column {name!r} (or it is there twice), the columns are"
            f" {listed(schema.names)}"
        )
    return schema.field(name).type


def _chosen(
    method: Method, free: Sequence[int], schema: Any, columns: Sequence[str] | None
) -> list[str]:
    """The column of each input that is fed."""
    names = [method.input_names[i] for i in free]
    if columns is not None:
        if len(columns) != len(free):
            raise InputError(
                f"{len(columns)} columns are named for {len(free)} inputs ({listed(names)})"
            )
        return list(columns)
    if set(names) <= set(schema.names):
        return names
    if len(free) == 1:
        likely = [f.name for f in schema if holds_images(f.type) or holds_numbers(f.type)]
        if len(likely) == 1:
            return likely
    raise InputError(
        f"which columns are the inputs {listed(names)}? The columns are {listed(schema.names)};"
        " name them, in the order of the inputs, with --columns"
    )


def _kept(
    schema: Any, keep: Sequence[str] | None, chosen: Sequence[str], made: Sequence[str]
) -> tuple[str, ...]:
    kept = [n for n in schema.names if n not in chosen] if keep is None else list(keep)
    for name in kept:
        if schema.get_field_index(name) < 0:
            raise InputError(
                f"there is no column {name!r} to keep, the columns are {listed(schema.names)}"
            )
        if name in made or kept.count(name) > 1:
            raise InputError(f"the column {name!r} would be there twice; choose others with --keep")
    return tuple(kept)


def _bytes(spec: Spec) -> int:
    """The size of a tensor at its bounds, if it has some."""
    if not isinstance(spec, TensorSpec) or not spec.bounded:
        return 0
    return math.prod(spec.shape) * spec.dtype.itemsize


def _is_free(spec: Spec) -> bool:
    return not (isinstance(spec, ScalarSpec) and spec.fixed)


def _row(spec: Spec) -> Spec:
    assert isinstance(spec, TensorSpec)
    return replace(spec, shape=spec.shape[1:], dim_order=None)


def _leads(spec: Spec, bound: int | None) -> bool:
    return isinstance(spec, TensorSpec) and bound is not None and spec.shape[:1] == (bound,)

"""A :class:`~penstock.batch.scorer.Scorer` at work in Ray Data, Dask and Spark.

Each function takes a data set of the library and gives one: reading, writing, spreading over
machines and doing again what a lost worker had are the library's own. Extras: ``[ray]``,
``[dask]``, ``[spark]``.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.batch.scorer import Scorer
from penstock.errors import InputError
from penstock.runtime.specs import listed


def with_ray(dataset: Any, scorer: Scorer, *, workers: int, batch_size: int = 64) -> Any:
    """The answers to a ``ray.data.Dataset``: ``workers`` actors of one CPU, each of which loads the
    program once and gets ``batch_size`` rows at a time.

    Args:
        dataset: what is there, by columns (see :class:`~penstock.batch.scorer.Scorer`).
        scorer: what computes the answers, in each worker.
        workers: how many actors; Ray waits until it has a CPU for each.
        batch_size: rows that an actor gets at once.

    Raises:
        ModuleNotFoundError: Ray is not installed; the extra ``[ray]`` brings it.
        InputError: a column or a row does not fit; Ray raises it, wrapped in an error of its own,
            when the answers are asked for.
    """
    from ray.data import ActorPoolStrategy

    return dataset.map_batches(
        _Actor, fn_constructor_args=(scorer,), batch_format="pyarrow",
        batch_size=batch_size, compute=ActorPoolStrategy(size=workers), num_cpus=1,
    )  # fmt: skip


class _Actor:
    """Ray makes one of these in each worker, and has the worker's rows go through it."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def __call__(self, table: Any) -> Any:
        return self._scorer(table)


def with_dask(frame: Any, scorer: Scorer) -> Any:
    """The answers to a ``dask.dataframe.DataFrame``, partition by partition.

    Its columns must have Arrow's types, which say what is in a list:
    ``read_parquet(..., dtype_backend="pyarrow")``.

    Args:
        frame: what is there, by columns (see :class:`~penstock.batch.scorer.Scorer`).
        scorer: what computes the answers, in each worker.

    Raises:
        ModuleNotFoundError: Dask is not installed; the extra ``[dask]`` brings it.
        InputError: a column does not fit or is of Python objects, at once; a row does not, when the
            answers are computed.
    """
    import pandas

    objects = [name for name, dtype in frame.dtypes.items() if dtype.name == "object"]
    if objects:
        raise InputError(
            f"the columns {listed(map(str, objects))} hold Python objects, which do not say what is"
            ' in them; read the files with read_parquet(..., dtype_backend="pyarrow")'
        )
    schema = scorer.schema(pa.Schema.from_pandas(frame._meta, preserve_index=False))
    meta = schema.empty_table().to_pandas(types_mapper=pandas.ArrowDtype)
    return frame.map_partitions(scorer, meta=meta)


def with_spark(frame: Any, scorer: Scorer) -> Any:
    """The answers to a ``pyspark.sql.DataFrame``, by ``mapInArrow``.

    Args:
        frame: what is there, by columns (see :class:`~penstock.batch.scorer.Scorer`).
        scorer: what computes the answers, in each worker.

    Raises:
        ModuleNotFoundError: Spark is not installed; the extra ``[spark]`` brings it.
        InputError: a column does not fit, at once; a row does not, when Spark runs, inside an error
            of its own.
    """
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    schema = scorer.schema(to_arrow_schema(frame.schema))
    return frame.mapInArrow(scorer.stream, from_arrow_schema(schema))

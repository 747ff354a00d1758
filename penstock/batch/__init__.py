"""Many rows: Parquet in, Parquet out, on one machine or on a cluster that is there already.

:func:`score_file` is ``penstock run --batch``. :class:`Scorer` is what travels to the workers of a
cluster: a program's file and options, and which columns it reads; it loads the program once in
each process. :mod:`penstock.batch.clusters` puts it to work in Ray Data, Dask and Spark.

Needs the extra ``[batch]``, and no torch.
"""

from __future__ import annotations

from penstock.batch.clusters import with_dask, with_ray, with_spark
from penstock.batch.files import score_file
from penstock.batch.scorer import Scorer

__all__ = ["Scorer", "score_file", "with_dask", "with_ray", "with_spark"]

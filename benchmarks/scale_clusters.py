"""``python -m benchmarks.scale_clusters LIBRARY SOURCE TARGET PROGRAM WORKERS``: the images of a
folder of Parquet files through a local cluster; prints the seconds that the job took, the start of
the cluster apart. :mod:`benchmarks.scale` calls it.
"""

from __future__ import annotations

import os
import sys
import time

from benchmarks.arguments import positionals
from penstock.batch import Scorer, with_dask, with_ray, with_spark


def on_ray(source: str, target: str, scorer: Scorer, workers: int) -> float:
    import ray

    # Reading and writing are tasks of their own, which want a CPU too.
    ray.init(num_cpus=workers + 2, include_dashboard=False, object_store_memory=1 << 30)
    start = time.perf_counter()
    rows = ray.data.read_parquet(source)
    with_ray(rows, scorer, workers=workers, batch_size=32).write_parquet(target)
    seconds = time.perf_counter() - start
    ray.shutdown()
    return seconds


def on_dask(source: str, target: str, scorer: Scorer, workers: int) -> float:
    import dask.dataframe
    from distributed import Client, LocalCluster

    cluster = LocalCluster(workers, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster):
        start = time.perf_counter()
        rows = dask.dataframe.read_parquet(source, dtype_backend="pyarrow", split_row_groups=True)
        with_dask(rows, scorer).to_parquet(target, write_index=False)
        return time.perf_counter() - start


def on_spark(source: str, target: str, scorer: Scorer, workers: int) -> float:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master(f"local-cluster[{workers},1,1024]")
        .config("spark.executor.memory", "1g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "64")
        .config("spark.sql.files.maxPartitionBytes", "8m")
        .getOrCreate()
    )
    start = time.perf_counter()
    with_spark(spark.read.parquet(source), scorer).write.parquet(target)
    seconds = time.perf_counter() - start
    spark.stop()
    return seconds


LIBRARIES = {"ray": on_ray, "dask": on_dask, "spark": on_spark}

if __name__ == "__main__":
    library, source, target, program, workers = positionals(
        __doc__, "library", "source", "target", "program", "workers"
    )
    scorer = Scorer(program, keep=["id"])
    print(f"seconds {LIBRARIES[library](source, target, scorer, int(workers))}")

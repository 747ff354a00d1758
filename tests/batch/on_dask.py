"""Parquet to Parquet through Dask: ``python on_dask.py source target scorer.pickle``."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import dask.dataframe
from distributed import Client, LocalCluster

from penstock.batch import with_dask

if __name__ == "__main__":
    source, target, scorer = sys.argv[1:]
    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        rows = dask.dataframe.read_parquet(
            source, dtype_backend="pyarrow", split_row_groups=True, aggregate_files=False
        )
        answers = with_dask(rows, pickle.loads(Path(scorer).read_bytes()))
        answers.to_parquet(target, write_index=False)

"""Parquet to Parquet through Ray Data: ``python on_ray.py source target scorer.pickle``."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import ray

from penstock.batch import with_ray

if __name__ == "__main__":
    source, target, scorer = sys.argv[1:]
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=256 << 20)
    rows = ray.data.read_parquet(source).repartition(target_num_rows_per_block=32)
    answers = with_ray(rows, pickle.loads(Path(scorer).read_bytes()), workers=2, batch_size=16)
    answers.write_parquet(target)
    ray.shutdown()

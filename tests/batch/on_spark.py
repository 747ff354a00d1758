"""Parquet to Parquet through Spark: ``python on_spark.py source target scorer.pickle``."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from penstock.batch import with_spark

if __name__ == "__main__":
    source, target, scorer = sys.argv[1:]
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    spark = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.executor.memory", "1g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "16")
        .config("spark.sql.files.maxPartitionBytes", "200000")
        .getOrCreate()
    )
    rows = spark.read.parquet(source)
    answers = with_spark(rows, pickle.loads(Path(scorer).read_bytes()))
    answers.write.parquet(target)
    spark.stop()

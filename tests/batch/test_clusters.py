"""Real clusters of two workers, one of which is killed half-way: every row is answered, once.

Marked ``cluster``: ``make test-clusters`` installs Ray, Dask and Spark and runs these.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_harness import IMAGE, answers, array, samples
from children import environment
from mortal import Mortal

HERE = Path(__file__).parent
ROWS, FILES = 512, 4
#: Each library, the process that is a worker to it, and what it needs besides.
LIBRARIES = {"ray": "", "dask": "", "spark": "CoarseGrainedExecutorBackend"}
PACKAGES = {"ray": "ray", "dask": "distributed", "spark": "pyspark"}


@pytest.mark.cluster
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_worker_is_killed(library: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(PACKAGES[library]) is None:
        pytest.skip(f"{PACKAGES[library]} is not installed: make test-clusters")
    if library == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs java, which is not there: apt-get install default-jre-headless")
    source, pids = tmp_path / "in", tmp_path / "pids"
    for folder in (source, pids):
        folder.mkdir()
    values = samples(ROWS).reshape(FILES, ROWS // FILES, -1)
    for index, part in enumerate(values):
        first = index * ROWS // FILES
        ids = np.arange(first, first + len(part))
        rows = pa.table({"id": ids, "x": pa.array(list(part), pa.list_(pa.float32()))})
        pq.write_table(rows, source / f"{index}.parquet", row_group_size=32)
    scorer = Mortal(IMAGE, pids=str(pids), last=300, victim=LIBRARIES[library])
    (tmp_path / "scorer").write_bytes(pickle.dumps(scorer))
    # What a failed run leaves behind must not outlive it.
    with subprocess.Popen(
        [sys.executable, HERE / f"on_{library}.py", source, tmp_path / "out", tmp_path / "scorer"],
        env=environment(), start_new_session=True,
    ) as child:  # fmt: skip
        try:
            assert child.wait(timeout=600) == 0
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    assert (pids / "killed").exists() and len([*pids.iterdir()]) >= 1 + 2  # both workers answered
    parts = [pq.read_table(path) for path in (tmp_path / "out").glob("*.parquet")]
    found = pa.concat_tables(parts, promote_options="permissive").sort_by("id")
    assert found["id"].to_pylist() == list(range(ROWS))
    np.testing.assert_array_equal(array(found["output_0"]), answers(ROWS))

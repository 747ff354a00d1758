"""``penstock run --batch``."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from batch_harness import IMAGE, answers, array, flat, samples, table
from cli_harness import Shell

RUN = ("penstock", "run", str(IMAGE), "--batch", "in.parquet")


def test_batch(shell: Shell) -> None:
    pq.write_table(table(20), shell.folder / "in.parquet")
    done = shell.call(*RUN, "--output", "out.parquet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "written: out.parquet\n"
    assert re.search(r"run +[\d.]+ s  20 rows, [\d,.]+ a second", done.stderr)
    np.testing.assert_array_equal(array(pq.read_table("out.parquet")["output_0"]), answers(20))
    shell.fails(*RUN, "--output", "out.parquet", message="out.parquet is there already")


def test_options(shell: Shell) -> None:
    rows = pa.table(
        {"a": flat(samples(4)), "b": flat(samples(4, 1)), "n": range(4), "s": ["x"] * 4}
    )
    pq.write_table(rows, shell.folder / "in.parquet")
    (shell.folder / "names").write_text("ant\nbee\ncat\ndog\neel\n")
    options = ("--columns", "b", "--keep", "n", "--labels", "names", "--threads", "1", "--json")
    done = shell.call(*RUN, "--output", "out.parquet", *options)
    assert done.returncode == 0 and not done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["rows_before"], report["files"]) == (4, 0, ["out.parquet"])
    found = pq.read_table("out.parquet")
    assert found.column_names == ["n", "output_0", "labels"]
    np.testing.assert_array_equal(array(found["output_0"]), answers(4, 1))
    assert (
        found["labels"][0][0]["name"].as_py()
        == ["ant", "bee", "cat", "dog", "eel"][answers(1, 1)[0].argmax()]
    )
    quiet = shell.call(*RUN, "--output", "again.parquet", "--columns", "a", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_errors(shell: Shell) -> None:
    (shell.folder / "in.parquet").write_bytes(b"PAR1 and no more PAR1")
    shell.fails(*RUN, message="where do the answers go")
    shell.fails(*RUN, "--output", "", message="--output-file is empty; give it a value")
    shell.fails(*RUN, "--output", "out.parquet", message="no Parquet file that can be read")
    shell.fails(*RUN, "-n", "2", message="leave --inputs")
    shell.fails("penstock", "run", str(IMAGE), "--keep", "id", message="--keep goes with --batch")
    pq.write_table(pa.table({"x": [[1.0] * 7] * 2}), shell.folder / "in.parquet")
    shell.fails(*RUN, "--output", ".", message="the answers cannot go to '.'")
    (shell.folder / "out.parquet.parts").mkdir()
    done = shell.call(*RUN, "--output", "out.parquet")
    assert done.returncode == 1 and "row 0 of the column 'x' has shape (7,)" in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line]) == 1

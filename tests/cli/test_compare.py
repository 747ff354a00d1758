"""``penstock compare``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cli_harness import Shell

STOCK = Path(__file__).parents[1] / "formats" / "stock"


def test_a_file_and_its_model(shell: Shell) -> None:
    shell.compiled("mymodels:net", "--output", "net.pte")
    done = shell.call("penstock", "compare", "net.pte", "mymodels:net")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "net (eager) and net.pte agree: 4 samples of mymodels:net" in text
    assert "output 1" in text and "no layer of" in text


def test_float_beside_int8(shell: Shell) -> None:
    shell.compiled("mymodels:net", "--output", "a.pte")
    shell.compiled("mymodels:net", "--quantize", "--output", "b.pte")
    done = shell.call(
        "penstock",
        "compare",
        "a.pte",
        "b.pte",
        "--model",
        "mymodels:net",
        "--json",
        "--samples",
        "2",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["samples"] == 2 and found["threshold_db"] == 20
    names = [layer["name"] for layer in found["layers"]]
    assert "conv conv2d" in names and "head linear" in names
    assert all(15 < float(layer["sqnr_db"]) < 80 for layer in found["layers"])


def test_two_engines_and_given_inputs(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    np.save("x.npy", np.ones((3, 3), np.float32))
    done = shell.call(
        "penstock", "compare", "a.pte", "--engine-a", "native", "--engine-b", "xnnpack",
        "--inputs", "x.npy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a.pte (native) and a.pte (xnnpack) agree: x.npy" in " ".join(done.stdout.split())
    same = shell.call("penstock", "compare", "a.pte", "a.pte", "--inputs", "x.npy")
    assert same.stdout.splitlines()[-1] == "1 layer, all equal"  # a table would say nothing more


def test_a_threshold_is_a_number(shell: Shell) -> None:
    file = str(STOCK / "image_fp32.pte")
    shell.fails(
        "penstock", "compare", file, file, "--agree", "nan", message="--agree is nan; give decibels"
    )


def test_a_page(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    done = shell.call("penstock", "compare", "a.pte", "--model", "linear", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    text = (shell.folder / "page.html").read_text()
    assert '"sqnr_db":' in text and "linear (eager) and a.pte" in text


def test_what_is_wrong(shell: Shell) -> None:
    shell.compiled("linear", "--output", "a.pte")
    shell.compiled("add", "--output", "b.pte")
    shell.fails("penstock", "compare", "a.pte", message="name a second file or model")
    shell.fails("penstock", "compare", "a.pte", "b.pte", message="not programs of one model")
    advice = "samples of mymodels:net are float32[1, 3, 8, 8]: name the model that it was compiled"
    shell.fails("penstock", "compare", "a.pte", "mymodels:net", message=advice)
    shell.fails("penstock", "compare", "a.pte", "linear", "--model", "mymodels:net", message=advice)
    shell.fails("penstock", "compare", "linear", "add", message="is a .pte file")
    shell.fails("penstock", "compare", "a.pte", "absent.pte", message="absent.pte")
    shell.fails("penstock", "compare", "a.pte", "no.such:model", message="no.such")
    shell.fails("penstock", "compare", "a.pte", "b.pte", "--engine-a", "gpu", message="gpu")


def test_files_with_data_files(shell: Shell) -> None:
    file, data = STOCK / "external" / "partly.pte", STOCK / "external" / "partly.ptd"
    shell.fails("penstock", "compare", str(file), str(file), message="in a data file")
    for rest in (
        (str(file), "--data-path-a", str(data), "--data-path-b", str(data)),
        ("--engine-a", "native", "--engine-b", "xnnpack", "--data-path-a", str(data)),
    ):
        done = shell.call("penstock", "compare", str(file), *rest)
        assert done.returncode == 0, done.stderr
        assert " agree: 4 random inputs" in done.stdout

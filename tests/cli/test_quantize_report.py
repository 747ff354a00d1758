"""``penstock quantize-report``."""

from __future__ import annotations

import json

from cli_harness import Shell


def test_the_worst_layers_come_first(shell: Shell) -> None:
    said = shell.call(
        "penstock", "quantize-report", "mymodels:described", "--calibration-batches", "2",
        "--json",
    )  # fmt: skip
    found = json.loads(said.stdout)
    assert found["model"] == "described" and found["batches"] == 2
    assert found["held_out_batches"] == 1
    own = [layer["held_out"]["own_db"] for layer in found["layers"] if layer["quantized"]]
    assert len(own) == 3 and own == sorted(own)
    assert {layer["operator"] for layer in found["layers"]} == {"convolution", "mean", "linear"}
    conv = next(layer for layer in found["layers"] if layer["operator"] == "convolution")
    assert sum(conv["weights"]["counts"]) == 8 * 3 * 3 * 3
    assert conv["float_bytes"] == 4 * (8 * 3 * 3 * 3 + 8)
    assert conv["bytes"] == 8 * 3 * 3 * 3 + 4 * 8 + 4 * 8
    assert conv["macs"] == 8 * 8 * 8 * 3 * 3 * 3


def test_as_a_table(shell: Shell) -> None:
    said = shell.call("penstock", "quantize-report", "mymodels:rows", "--scheme", "dynamic")
    lines = said.stdout.splitlines()
    assert lines[0] == "1 of 1 operators quantized (dynamic_per_channel)"
    assert "1 batch of calibration data" in lines[1]
    assert lines[-1].split()[0] == "linear"


def test_bad_data(shell: Shell) -> None:
    for held_out, message in (
        ("mymodels:misfit", "held-out batch 0, input image: expected float32 [1, 3, 8, 8]"),
        ("mymodels:empty", "the held-out data holds no batch"),
        ("absent", "no held-out data at 'absent'"),
    ):
        shell.fails(
            "penstock", "quantize-report", "mymodels:net", "--held-out", held_out,
            message=message,
        )  # fmt: skip


def test_of_a_language_model_the_way_is_said(shell: Shell) -> None:
    shell.fails("penstock", "quantize-report", "smollm2", message="smollm2 is a language model")
    shell.fails("penstock", "quantize-report", "m.pte", message="it is compiled already")
    shell.fails("penstock", "quantize-report", "m.pth", message="it holds weights, not what is")

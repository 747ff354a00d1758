"""``penstock compile --accuracy-budget``."""

from __future__ import annotations

from cli_harness import Shell


def test_what_was_kept_is_said(shell: Shell) -> None:
    compiled = ("mymodels:seeded", "--quantize", "--accuracy-budget")
    easy = shell.compiled(*compiled, "5")["accuracy_budget"]
    assert easy["kept"] == [] and easy["reached"] == easy["int8"] > 5 and easy["floating"] is None
    more = easy["int8"] + 4
    found = shell.compiled(*compiled, str(more))
    budget = found["accuracy_budget"]
    assert budget["reached"] >= more and budget["kept"] and budget["extra_bytes"] > 0
    assert "held-out data" in budget["data"]
    assert found["pieces"] == 1 and not found["nodes_outside"]
    shown = shell.call("penstock", "compile", *compiled, str(more)).stdout
    assert "kept in" in shown and "in float: " in shown


def test_bad_budgets(shell: Shell) -> None:
    for given, message in (
        (("--quantize", "--accuracy-budget", "300"), "300.0 dB cannot be met: the nearest of"),
        (("--quantize", "--accuracy-budget", "nan"), "sqnr is nan"),
        (("--accuracy-budget", "30"), "--quantize"),
        (("--quantize", "--held-out", "x"), "--accuracy-budget"),
        (
            ("--quantize", "--accuracy-budget", "30", "--held-out", "mymodels:empty"),
            "held-out data holds no batch",
        ),
        (
            ("--quantize", "--accuracy-budget", "30", "--calibration", "mymodels:empty"),
            "calibration data holds no batch",
        ),
    ):
        shell.fails("penstock", "compile", "mymodels:net", *given, message=message)

"""``penstock inspect``."""

from __future__ import annotations

import json

from cli_harness import Shell


def test_inspect(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    found = json.loads(shell.call("penstock", "inspect", "l.pte", "--json").stdout)
    (method,) = found["methods"]
    assert method["inputs"] == ["float [3, 3]"]
    assert method["delegates"][0]["kinds"] == {"fully_connected": 1}
    shown = shell.call("penstock", "inspect", "l.pte", "--nodes").stdout
    assert "fully_connected(fp32[3, 3], fp32[3, 3], fp32[3]) -> fp32[3, 3]" in shown
    (line,) = (line for line in shown.splitlines() if "fully_connected(" in line)
    assert "linear (penstock/zoo/toys.py:" in line
    (origin,) = method["origins"]
    assert origin in line
    shell.fails("penstock", "inspect", "absent.pte", message="absent.pte")
    (shell.folder / "bad.pte").write_bytes(b"\0" * 100)
    shell.fails("penstock", "inspect", "bad.pte", message="bad.pte")

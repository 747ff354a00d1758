"""``penstock inspect``."""

from __future__ import annotations

import json

from cli_harness import Shell


def test_inspect(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    found = json.loads(shell.call("penstock", "inspect", "l.pte", "--json").stdout)
    (method,) = found["methods"]
    assert [value["text"] for value in method["inputs"]] == ["float [3, 3]"]
    assert method["delegates"][0]["kinds"] == {"fully_connected": 1}
    shown = shell.call("penstock", "inspect", "l.pte", "--nodes").stdout
    assert "fully_connected(fp32[3, 3], fp32[3, 3], fp32[3]) -> fp32[3, 3]" in shown
    (line,) = (line for line in shown.splitlines() if "fully_connected(" in line)
    assert "linear (penstock/zoo/toys.py:" in line
    (instruction,) = method["instructions"]
    assert instruction["origin"]["module"] in line
    assert method["delegation"]["share"] == 1
    shell.fails("penstock", "inspect", "absent.pte", message="absent.pte")
    (shell.folder / "bad.pte").write_bytes(b"\0" * 100)
    shell.fails("penstock", "inspect", "bad.pte", message="bad.pte")


def test_a_page(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    shown = shell.call("penstock", "inspect", "l.pte", "--html", "l.html").stdout
    assert shown.strip() == "written: l.html"
    page = (shell.folder / "l.html").read_text()
    assert "<title>l.pte</title>" in page and "fully_connected" in page
    before = (shell.folder / "l.pte").read_bytes()
    shell.fails("penstock", "inspect", "l.pte", "--html", "./l.pte", message="the argument file")
    assert (shell.folder / "l.pte").read_bytes() == before
    (shell.folder / "p.json").write_text("{}")
    shell.fails(
        "penstock", "inspect", "l.pte", "--html", "no/l.html", message="cannot write the page"
    )
    shell.fails("penstock", "inspect", "l.pte", "--profile", "p.json", message="give --html too")
    shell.fails(
        "penstock", "inspect", "l.pte", "--html", "l.html", "--profile", "p.json",
        message="is not a profile; make one with penstock profile l.pte --json",
    )  # fmt: skip


def test_a_page_with_times(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    profile = shell.call("penstock", "profile", "l.pte", "--runs", "3", "--json").stdout
    (shell.folder / "p.json").write_text(profile)
    shell.call("penstock", "inspect", "l.pte", "--html", "l.html", "--profile", "p.json")
    page = (shell.folder / "l.html").read_text()
    assert '"timings":{"method":"forward"' in page


def test_what_a_file_requires(shell: Shell) -> None:
    shell.compiled("linear", "--output", "l.pte")
    shown = shell.call("penstock", "inspect", "l.pte", "--requires").stdout
    assert "l.pte runs on ExecuTorch 0.6.0 and later (known up to " in shown
    assert "node      fully_connected" in shown
    found = json.loads(shell.call("penstock", "inspect", "l.pte", "--requires", "--json").stdout)
    assert (found["first"], found["last"], found["unknown"]) == ("0.6.0", None, [])
    assert {"fully_connected", "fp32", "named data"} <= {o["name"] for o in found["requirements"]}
    shell.fails("penstock", "inspect", "absent.pte", "--requires", message="absent.pte")

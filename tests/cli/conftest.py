"""What the tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_harness import USER_MODULE, Capture, Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Shell:
    (tmp_path / "mymodels.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return Shell(tmp_path, monkeypatch, capsys)

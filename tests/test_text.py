"""What several commands say in the same words."""

from __future__ import annotations

from penstock.text import counted


def test_numbers_agree_with_their_nouns() -> None:
    assert counted(1, "delegated piece") == "1 delegated piece"
    assert [counted(n, "node") for n in (0, 2, 12345)] == ["0 nodes", "2 nodes", "12,345 nodes"]

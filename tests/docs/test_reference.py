"""The API reference: every public name is documented whole, and the site's checks find faults."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.build_site import PACKAGES, broken_links, public_names  # noqa: E402

NAMES = [(package, name) for package in PACKAGES for name in public_names(package)]


#: What is handed on as it is, to what the docstring names.
FORWARDED = {"args", "kwargs", "options"}


def members(owner: Any) -> Iterator[tuple[str, Any]]:
    """Public functions of a class of ours, with those that it inherits from one."""
    for base in inspect.getmro(owner):
        if base.__module__.startswith("penstock."):
            for name, member in vars(base).items():
                plain = getattr(member, "__func__", getattr(member, "fget", member))
                if inspect.isfunction(plain) and (name == "__call__" or not name.startswith("_")):
                    yield name, plain


def unsaid(function: Any, *docs: str) -> list[str]:
    """The parameters that no docstring names."""
    text = "\n".join(docs)
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    return [name for name in names if not re.search(rf"\b{name}\b", text)]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_docstrings_are_whole(package: str, name: str) -> None:
    thing = getattr(importlib.import_module(package), name)
    doc = inspect.getdoc(thing) or ""
    assert doc.strip(), f"{package}.{name} has no docstring"
    if not inspect.isclass(thing):
        assert not unsaid(thing, doc)
        assert "Raises" in doc or "raises" in doc
        return
    assert not [member for member, function in members(thing) if not inspect.getdoc(function)]
    for member, function in members(thing):
        missing = unsaid(function, inspect.getdoc(function) or "", doc)
        assert set(missing) <= FORWARDED, f"{name}.{member}: {missing}"
    if "__init__" in vars(thing) and not issubclass(thing, Exception):
        made = inspect.getdoc(thing.__init__) or ""
        if "Made by" not in doc and "conversation()" not in doc:
            assert not unsaid(thing.__init__, doc, made)


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a id="here"></a><a href="b.html#there">b</a><a href="#here">'
    )
    (tmp_path / "b.html").write_text(
        '<h1 id="there"></h1><a href="https://elsewhere.example/"></a>'
    )
    assert list(broken_links(tmp_path)) == []
    (tmp_path / "b.html").write_text(
        '<h1 id="other"></h1><img src="gone.png"><a href="/a.html#no">'
    )
    assert list(broken_links(tmp_path)) == [
        "a.html: b.html#there",
        "b.html: /a.html#no",
        "b.html: gone.png",
    ]

"""An extension of griffe, which reads the docstrings for the site: they become plain Markdown.

Docstrings say ``:class:`Quantization``` and end a paragraph before code with two colons, which
Markdown does not know; and they show lines of a Python session, which it takes for quotations.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`(?:[^`<]*<)?~?([\w.]+)>?`")
_SESSION = re.compile(r"(?:^(?:>>>|\.\.\.) ?.*\n?)+", re.MULTILINE)
_PROMPT = re.compile(r"^(?:>>>|\.\.\.) ?", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """The docstring, for Markdown."""
    text = _ROLE.sub(lambda role: f"`{role[1].removeprefix('penstock.')}`", docstring)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    return _SESSION.sub(
        lambda lines: f"```python\n{_PROMPT.sub('', lines[0]).rstrip()}\n```\n", text
    )


class Docstrings(griffe.Extension):  # type: ignore[misc]
    """Named in ``mkdocs.yml``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

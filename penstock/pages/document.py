"""A page: the bundled script of its kind, and the data that it draws."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from penstock.errors import BackendUnavailableError
from penstock.files import write_file

ASSETS = Path(__file__).parent / "assets"
#: What turns the text around it about (bidirectional controls) or is no text (control characters),
#: by its code: names in files may hold it.
_UNSHOWN = {
    code: f"\\u{code:04x}"
    for code in (
        *(c for c in range(0xA0) if (c < 0x20 or c > 0x7E) and chr(c) not in "\n\t"),
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    )
}
#: JavaScript's names of what JSON has no numbers for.
_WORDS = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="generator" content="Penstock">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><h1>{title}</h1></header>
<main id="main" tabindex="-1"><noscript>This page draws its data with JavaScript.</noscript></main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
<!--
{licences}
-->
</body>
</html>
"""


def page(kind: str, title: str, data: Mapping[str, Any]) -> str:
    """The page that ``web/src/<kind>.js`` draws ``data`` on, as HTML.

    ``data`` may hold dataclasses, enums, paths and NumPy's numbers and arrays. Infinities and NaN
    reach the script as the strings ``"Infinity"``, ``"-Infinity"`` and ``"NaN"``. Nothing in
    ``title`` or ``data`` is taken for HTML.

    Raises:
        BackendUnavailableError: the scripts were not built into this installation.
    """
    title = " ".join(title.split()).encode(errors="replace").decode().translate(_UNSHOWN)
    script, style = _asset(f"{kind}.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Only our script runs, and nothing is loaded from anywhere.
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
    return _PAGE.format(
        policy=policy, title=html.escape(title), style=style, script=script,
        data=to_json(data), licences=_asset("LICENSES.txt").replace("--", "- "),
    )  # fmt: skip


def write_page(path: str | Path, kind: str, title: str, data: Mapping[str, Any]) -> Path:
    """Write :func:`page` to ``path``, in one step, and give the path back.

    Raises:
        BackendUnavailableError: the scripts were not built into this installation.
        InputError: the file cannot be written.
    """
    text = page(kind, title, data).encode()
    write_file(path, lambda file: file.write(text), what="page")
    return Path(path)


def to_json(data: Any) -> str:
    """``data`` as JSON that can stand within a ``script`` element, all of it text that can be
    shown."""
    text = json.dumps(_shown(plain(data)), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _shown(data: Any) -> Any:
    if isinstance(data, str):
        return data.translate(_UNSHOWN)
    if isinstance(data, dict):
        return {_shown(key): _shown(value) for key, value in data.items()}
    return [_shown(item) for item in data] if isinstance(data, list) else data


def plain(data: Any) -> Any:
    """``data`` (dataclasses, enums, NumPy's arrays, infinities) in JSON's own types, as
    :func:`page` says."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {f.name: plain(getattr(data, f.name)) for f in dataclasses.fields(data)}
    if isinstance(data, Enum):
        return data.name.lower()
    if data is None or isinstance(data, (str, bool, int)):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else _WORDS[str(data)]
    if isinstance(data, Mapping):
        return {str(plain(key)): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [plain(item) for item in data]
    if hasattr(data, "tolist"):  # NumPy's scalars and arrays
        return plain(data.tolist())
    return str(data)


def _asset(name: str) -> str:
    path = ASSETS / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise BackendUnavailableError(
            f"this installation has no scripts for pages ({path} is missing): install Node.js"
            " with npm and build Penstock again ('make pages' in its sources)"
        ) from None

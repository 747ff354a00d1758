"""``penstock inspect --machine``: what runs delegates here."""

from __future__ import annotations

import json
import os
from typing import Any

from penstock.cli.safe_console import SafeConsole
from penstock.errors import BackendUnavailableError
from penstock.runtime.engines.native import library as native
from penstock.runtime.engines.native.families import kernel_names
from penstock.runtime.engines.native.isa import VARIABLE
from penstock.runtime.engines.processor import processor
from penstock.runtime.engines.threads import default_threads
from penstock.runtime.engines.xnnpack.library import find
from penstock.text import counted


def describe_machine() -> dict[str, Any]:
    """Processor, engines and kernels as plain data; what ``--json`` prints.

    Raises InputError if ``PENSTOCK_ISA`` names no instruction set of this machine.
    """
    return {"processor": processor(), "threads": default_threads(), "engines": _engines()}


def _engines() -> dict[str, Any]:
    xnnpack: dict[str, Any]
    try:
        xnnpack = {"library": str(find())}
    except BackendUnavailableError as error:
        xnnpack = {"missing": str(error)}
    return {"xnnpack": xnnpack, "native": _native()}


def _native() -> dict[str, Any]:
    try:
        library = native.shared_library()
    except BackendUnavailableError as error:
        return {"missing": str(error)}
    caches = library.caches()
    return {
        "library": str(library.path),
        "instruction_sets": list(library.detected.names),
        "used": list(library.isa.names),
        "caches": {name: getattr(caches, name) for name in ("l1", "l2", "l3")},
        "kernels": kernel_names(library),
    }


def show_machine(*, as_json: bool) -> None:
    """Print what :func:`describe_machine` finds."""
    found = describe_machine()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = SafeConsole(highlight=False, soft_wrap=True)
    lines = [f"processor  {found['processor']}, {counted(found['threads'], 'thread')}"]
    for name, engine in found["engines"].items():
        lines.append(f"engine {name}: {engine.get('library', engine.get('missing'))}")
        if "kernels" in engine:
            lines += _details(engine)
    for line in lines:
        console.print(line, markup=False)


def _details(engine: dict[str, Any]) -> list[str]:
    unused = [name for name in engine["instruction_sets"] if name not in engine["used"]]
    left_out = f"; not used: {', '.join(unused)} ({VARIABLE}={os.environ.get(VARIABLE)})"
    sizes = [f"{name.upper()} {size >> 10} KiB" for name, size in engine["caches"].items() if size]
    return [
        f"  instruction sets  {', '.join(engine['used'])}{left_out if unused else ''}",
        f"  caches            {', '.join(sizes) or 'unknown'}",
        *(f"  {family:17} {kernel}" for family, kernel in engine["kernels"].items()),
    ]

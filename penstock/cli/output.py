"""Where a compiled file goes: its name, and whether it can be written there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from penstock.errors import InputError


def file_name(model: str, *, quantized: bool, delegate: bool) -> str:
    """``mv2_xnnpack_fp32.pte``, ``mv2_xnnpack_q8.pte``; without XNNPACK ``mv2_fp32.pte`` and
    ``mv2_quantized.pte``."""
    if delegate:
        return f"{model}_xnnpack_{'q8' if quantized else 'fp32'}.pte"
    return f"{model}_{'quantized' if quantized else 'fp32'}.pte"


def writable(path: Path) -> Path:
    """Gives ``path`` back if a file can be written there; makes its directory if that is missing.

    Called before the work begins. Raises ``InputError`` when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write to the output directory {path.parent}: {reason}; give another one with "
            "--output-dir"
        ) from error
    if path.is_dir():
        raise InputError(f"the output {path} is a directory; give a file name")
    return path

"""Where a compiled file goes: its name, and whether it can be written there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from penstock.compiler.quantize.quantization import Scheme
from penstock.errors import InputError


def file_name(model: str, *, scheme: Scheme | None, delegate: bool) -> str:
    """``mv2_xnnpack_fp32.pte``, ``mv2_xnnpack_q8.pte``, ``mv2_xnnpack_4bit.pte``; without XNNPACK
    ``mv2_fp32.pte`` and ``mv2_quantized.pte``. ``scheme`` is ``None`` for float32."""
    if delegate:
        return f"{model}_xnnpack_{_BITS.get(scheme, 'q8')}.pte"
    return f"{model}_{'fp32' if scheme is None else 'quantized'}.pte"


_BITS: Mapping[Scheme | None, str] = {None: "fp32", "dynamic_4bit": "4bit"}


def writable(path: Path, option: str = "--output-dir") -> Path:
    """Gives ``path`` back if a file can be written there; makes its directory if that is missing.

    Called before the work begins. Raises ``InputError``, which names the ``option`` that changes
    it, when it cannot be written.
    """
    folder = path.parent
    if folder.suffix == ".pte" and not folder.exists():
        raise InputError(
            f"the output directory {folder} is named like a file; give a directory to {option}, or "
            "the file to penstock compile --output"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write to the output directory {path.parent}: {reason}; give another one with "
            f"{option}"
        ) from error
    if path.is_dir():
        raise InputError(f"the output {path} is a directory; give a file name")
    return path

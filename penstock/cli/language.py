"""``penstock compile`` for language models: checkpoints to files with a tokenizer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from penstock.cli.console import Stages, hush_libraries
from penstock.cli.output import writable
from penstock.cli.pipeline import Outcome
from penstock.errors import InputError
from penstock.llm.export.named import PACKAGES, find

_ENDINGS = {"none": "fp32", "dynamic_per_channel": "q8"}


@dataclass(frozen=True)
class LanguageRequest:
    """A checkpoint to compile. ``scheme`` and ``max_length`` are the checkpoint's own if None."""

    source: str
    scheme: str | None = None
    max_length: int | None = None
    cache: str = "float32"
    output_dir: Path = Path(".")
    output: Path | None = None


def compile_language_model(request: LanguageRequest, stages: Stages) -> Outcome:
    """Compiles, and writes the file and its tokenizer.

    Raises any error of Penstock.
    """
    start = time.perf_counter()
    path = find(request.source) if request.source in PACKAGES else Path(request.source)
    if not path.exists():
        raise InputError(f"there is no file {path}")
    writable(request.output or request.output_dir / "_")
    with stages.stage("import torch"):
        hush_libraries()
        from penstock.llm.export.compile import compile_model
    timings = {"import torch": time.perf_counter() - start}
    compiled = compile_model(
        path,
        scheme=request.scheme,
        longest=request.max_length,
        cache=request.cache,
        progress=stages,
    )
    name = request.source if request.source in PACKAGES else path.resolve().name
    ending = _ENDINGS.get(compiled.scheme, "4bit")
    output = request.output or request.output_dir / f"{name.removesuffix('.gguf')}_{ending}.pte"
    with stages.stage("write") as stage:
        _, tokenizer = compiled.save(output)
        stage.note(f"and {tokenizer.name}")
    timings.update(compiled.lowered.timings)
    return Outcome(
        name=name,
        path=output,
        size=output.stat().st_size,
        scheme=compiled.scheme,
        lowered=compiled.lowered,
        timings=timings,
    )

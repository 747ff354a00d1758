"""A tiny language model, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import LONGEST, folder

from penstock.llm import LanguageModel, load
from penstock.llm.export.compile import compile_model


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny")
    compiled = compile_model(folder("llama2", place), scheme="none", longest=LONGEST, chunk=8)
    compiled.save(place / "tiny.pte")
    return place / "tiny.pte"


@pytest.fixture
def tiny(tiny_file: Path) -> LanguageModel:
    return load(tiny_file, threads=1)

"""Language models: from a checkpoint to a conversation.

>>> import penstock
>>> model = penstock.llm.load("smollm2_4bit.pte")                      # needs the extra [llm]
>>> for text in model.stream("Once upon a time", max_tokens=64): ...
>>> penstock.llm.compile_model("path/to/hf-folder").save("model.pte")  # needs torch as well

Running needs no torch. What compiles is in ``penstock.llm.export``, which does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.errors import for_missing_package
from penstock.llm.answer import Answer
from penstock.llm.conversation import Conversation
from penstock.llm.model import LanguageModel, load
from penstock.llm.sampling import Options

if TYPE_CHECKING:
    from penstock.llm.export.compile import compile_model

__all__ = ["Answer", "Conversation", "LanguageModel", "Options", "compile_model", "load"]


def __getattr__(name: str) -> Any:
    if name != "compile_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module("penstock.llm.export.compile").compile_model
    except ModuleNotFoundError as error:
        raise for_missing_package(error) or error from error

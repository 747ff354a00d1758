"""A checkpoint, whichever format it came in: :class:`Checkpoint`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from penstock.errors import InputError, PenstockError, shorten
from penstock.faults import IF_SOUND, one_line
from penstock.llm.export.blocks import Blocks
from penstock.llm.export.config import DecoderConfig
from penstock.llm.export.decoder import Decoder
from penstock.llm.export.layers import Linear

#: Gives a tensor when it is asked for: real numbers of any float type, or quantized blocks.
Tensor = Callable[[], "torch.Tensor | Blocks"]


@dataclass(frozen=True)
class Checkpoint:
    """What a language model is: its sizes, its weights by the decoder's names, its tokenizer (the
    JSON of the ``tokenizers`` library), its chat template (Jinja) and what it says about
    generation."""

    name: str
    config: DecoderConfig
    tensors: Mapping[str, Tensor]
    tokenizer: str
    chat_template: str | None = None
    #: the texts that templates name: ``bos_token``, ``eos_token`` …
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    #: ``temperature``, ``top_p``, ``top_k``, ``repetition_penalty`` where the checkpoint says so
    generation: Mapping[str, float] = field(default_factory=dict)
    begin: int | None = None
    ends: tuple[int, ...] = ()


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turns what a damaged or hostile checkpoint makes its readers stumble over (numbers that are
    texts, lists that are objects, sizes that do not fit) into :class:`InputError`.

    Panics of the libraries that are written in Rust are no ``Exception``; interrupts go by.
    """
    try:
        yield
    except (PenstockError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(
            f"the checkpoint {shorten(source)} is damaged, or says what makes no sense: "
            f"{one_line(error)}; {IF_SOUND}"
        ) from error


def fill(decoder: Decoder, tensors: Mapping[str, Tensor], *, exact_blocks: bool) -> None:
    """Puts the weights in their places, as float32; with ``exact_blocks`` quantized ones in the
    layers as they are.

    Raises :class:`InputError` where one is missing, or has another shape than the configuration
    says.
    """
    for name, place in places(decoder).items():
        found = tensors.get(name)
        if found is None:
            raise InputError(
                f"the checkpoint has no tensor for {name}, which its configuration asks for"
            )
        value = found()
        if tuple(value.shape) != tuple(place.shape):
            raise InputError(
                f"the checkpoint's tensor for {name} is {list(value.shape)}, its configuration "
                f"says {list(place.shape)}"
            )
        owner, leaf = owner_of(decoder, name)
        if isinstance(value, Blocks):
            if exact_blocks and isinstance(owner, Linear):
                _check_finite(name, value.scales)
                if value.offsets is not None:
                    _check_finite(name, value.offsets)
                owner.take_blocks(value)
                continue
            value = value.real()
        value = value.to(torch.float32)
        _check_finite(name, value)
        value = _scaled(decoder.config, name, value)
        setattr(owner, leaf, torch.nn.Parameter(value, requires_grad=False))
    if decoder.config.tied:
        decoder.tie()


def _check_finite(name: str, value: torch.Tensor) -> None:
    """Raises :class:`InputError` for what a damaged file, or a broken conversion, has."""
    if value.numel() and not torch.stack(torch.aminmax(value)).isfinite().all():
        raise InputError(
            f"the checkpoint's tensor for {name} has infinite numbers, or some that are none; it "
            "is damaged"
        )


#: What ends with these is added to the residual.
_ADDED = ("attention.output", "feed_forward.down")


def _scaled(config: DecoderConfig, name: str, value: torch.Tensor) -> torch.Tensor:
    """A parameter with the factors of the configuration that can be in it."""
    owner, _, _ = name.rpartition(".")
    if config.norm_offset and "norm" in name:
        value = value + 1.0
    if config.residual_scale != 1.0 and owner.endswith(_ADDED):
        value = value * config.residual_scale
    if config.logit_divisor != 1.0 and name == "norm.weight":
        value = value / config.logit_divisor  # all that reads it is the head
    return value


def places(decoder: Decoder) -> dict[str, torch.Tensor]:
    """The decoder's parameters by name, without the head where it is the embedding."""
    found: dict[str, torch.Tensor] = dict(decoder.named_parameters(remove_duplicate=False))
    if decoder.config.tied:
        found.pop("head.weight", None)
    return found


def owner_of(decoder: Decoder, name: str) -> tuple[torch.nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return decoder.get_submodule(path), leaf


def check_vocabulary(config: DecoderConfig, largest: int, name: str) -> None:
    """Raises :class:`InputError` where a tokenizer has tokens beyond the embedding."""
    if largest >= config.vocabulary:
        raise InputError(
            f"the tokenizer of {shorten(name)} has tokens up to {largest}, the model's vocabulary "
            f"has {config.vocabulary}; they do not belong together"
        )


def largest_token(tokenizer: Mapping[str, Any]) -> int:
    """The largest id in a tokenizer's JSON, -1 where there is none."""
    model = tokenizer.get("model", {})
    vocabulary = model.get("vocab", {})
    if isinstance(vocabulary, Mapping):
        ids = list(vocabulary.values())
    else:
        ids = list(range(len(vocabulary)))
    ids += [token.get("id", -1) for token in tokenizer.get("added_tokens", [])]
    return max((int(one) for one in ids), default=-1)

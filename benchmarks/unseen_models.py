"""Models that are not in the zoo, from torchvision, timm and transformers, with random weights.

The models of transformers have the sizes of a released one, some with fewer layers, and wider
initial weights than they are trained from: with the usual ones every layer adds next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from penstock.compiler.quantize.quantization import Scheme
from penstock.zoo.libraries import require
from penstock.zoo.model import Batches, variations
from penstock.zoo.weights import randomize

VOCABULARY = 8000
STATIC: Scheme = "static_per_channel"
DYNAMIC: Scheme = "dynamic_per_channel"


@dataclass(frozen=True)
class Unseen:
    """A model, its source of input tuples (the example first), and how it is quantized."""

    module: nn.Module
    batches: Batches
    scheme: Scheme


Factory = Callable[[], Unseen]
MODELS: dict[str, Factory] = {}


class Plain(nn.Module):
    """Tensors in, named by ``names`` where the model wants keywords; float tensors out."""

    def __init__(self, model: nn.Module, names: tuple[str, ...] = (), **fixed: Any) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.fixed = fixed

    def forward(self, *inputs: torch.Tensor) -> Any:
        given = dict(zip(self.names, inputs, strict=False))
        result = self.model(*inputs[len(given) :], **given, **self.fixed)
        leaves = torch.utils._pytree.tree_leaves(result)
        return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def _vision(name: str, factory: Callable[[], nn.Module], size: int) -> None:
    def make() -> Unseen:
        module = Plain(factory()).eval()
        batches = variations(torch.randn(1, 3, size, size))
        randomize(module, batches)
        return Unseen(module, batches, STATIC)

    MODELS[name] = make


def _torchvision(name: str, size: int = 224, **options: Any) -> None:
    def factory() -> nn.Module:
        models = require("torchvision").models
        function = getattr(models, name, None) or getattr(models.segmentation, name)
        model: nn.Module = function(weights=None, **options)
        return model

    _vision(f"torchvision {name}", factory, size)


def _timm(name: str, size: int = 224) -> None:
    def factory() -> nn.Module:
        model: nn.Module = require("timm").create_model(name, pretrained=False)
        return model

    _vision(f"timm {name}", factory, size)


def _tokens(*shapes: tuple[int, int]) -> Batches:
    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            yield tuple(torch.randint(5, VOCABULARY, s, generator=generator) for s in shapes)

    return batches


def _masked_tokens(rows: int, length: int) -> Batches:
    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=generator)
            mask = (torch.arange(length) < lengths).long()
            tokens = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
            yield tokens * mask, mask

    return batches


def _together(*sources: Batches) -> Batches:
    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        for parts in zip(*(source(count) for source in sources), strict=True):
            yield tuple(tensor for part in parts for tensor in part)

    return batches


def _transformers(
    name: str,
    model: str,
    config: str,
    inputs: Callable[[], Batches],
    names: tuple[str, ...],
    part: str | None = None,
    widen: bool = True,
    fixed: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    def make() -> Unseen:
        library = require("transformers")
        whole = getattr(library, model)(getattr(library, config)(**options))
        chosen = whole if part is None else getattr(whole, part)
        if widen:
            _widen(chosen)
        return Unseen(Plain(chosen, names, **(fixed or {})).eval(), inputs(), DYNAMIC)

    MODELS[f"transformers {name}"] = make


@torch.no_grad()
def _widen(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(0.0, layer.in_features**-0.5)
        elif type(layer).__name__ == "Conv1D":  # a linear layer of GPT-2
            cast("Any", layer).weight.normal_(0.0, cast("Any", layer).nx ** -0.5)
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.weight.requires_grad:
            layer.weight.normal_(0.0, layer.weight[0].numel() ** -0.5)
        elif isinstance(layer, nn.Embedding):
            layer.weight.normal_(0.0, 0.3)


TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_CACHE = {"use_cache": False}
IMAGE = variations(torch.zeros(1, 3, 224, 224) + 0.5)

_torchvision("densenet121")
_torchvision("shufflenet_v2_x1_0")
_torchvision("regnet_y_400mf")
_torchvision("lraspp_mobilenet_v3_large", weights_backbone=None)
_torchvision("maxvit_t")
_torchvision("swin_v2_t", 256)
_timm("mixer_s32_224")
_timm("convmixer_768_32")
_timm("efficientvit_b0")
_timm("levit_128s")
_timm("mobilevit_xxs", 256)
_timm("edgenext_xx_small", 256)
_timm("xcit_nano_12_p16_224")
_timm("fastvit_t8", 256)
_timm("repvgg_a0")
_timm("hrnet_w18_small")
_transformers(
    "GPT-2 (4 layers), 64 tokens", "GPT2LMHeadModel", "GPT2Config", lambda: _tokens((1, 64)),
    ("input_ids",), fixed=NO_CACHE, n_layer=4, **TEXT,
)  # fmt: skip
_transformers(
    "Qwen3 (4 layers of 512, 8 heads on 4), 64 tokens", "Qwen3ForCausalLM", "Qwen3Config",
    lambda: _tokens((1, 64)), ("input_ids",), fixed=NO_CACHE, hidden_size=512, head_dim=64,
    intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
    **TEXT,
)  # fmt: skip
_transformers(
    "DistilBERT, 2 x 64 tokens and a mask", "DistilBertModel", "DistilBertConfig",
    lambda: _masked_tokens(2, 64), ("input_ids", "attention_mask"), vocab_size=VOCABULARY,
)  # fmt: skip
_transformers(
    "T5 small, 64 tokens in, 16 out", "T5ForConditionalGeneration", "T5Config",
    lambda: _tokens((1, 64), (1, 16)), ("input_ids", "decoder_input_ids"), fixed=NO_CACHE,
    vocab_size=VOCABULARY, decoder_start_token_id=0, widen=False,
)  # fmt: skip
_transformers(
    "Whisper tiny, encoder (10 s)", "WhisperModel", "WhisperConfig",
    lambda: variations(torch.randn(1, 80, 1000)), ("input_features",), part="encoder",
    max_source_positions=500, d_model=384, encoder_layers=4, decoder_layers=4,
    encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536,
    decoder_ffn_dim=1536, decoder_start_token_id=1, **TEXT,
)  # fmt: skip
_transformers(
    "Whisper tiny, decoder, 16 tokens", "WhisperModel", "WhisperConfig",
    lambda: _together(_tokens((1, 16)), variations(torch.randn(1, 500, 384))),
    ("input_ids", "encoder_hidden_states"), part="decoder", fixed=NO_CACHE,
    d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
    decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536,
    decoder_start_token_id=1, **TEXT,
)  # fmt: skip
_transformers(
    "wav2vec 2.0 (4 layers), 1 s", "Wav2Vec2ForCTC", "Wav2Vec2Config",
    lambda: variations(torch.randn(1, 16_000)), ("input_values",), num_hidden_layers=4,
)  # fmt: skip
_transformers(
    "SegFormer b0", "SegformerForSemanticSegmentation", "SegformerConfig", lambda: IMAGE,
    ("pixel_values",),
)  # fmt: skip
_transformers(
    "DINOv2 small", "Dinov2Model", "Dinov2Config", lambda: IMAGE, ("pixel_values",),
    hidden_size=384, num_attention_heads=6, image_size=224, patch_size=14,
)  # fmt: skip
_transformers(
    "SAM encoder (2 layers of 384, 256 px)", "SamVisionModel", "SamVisionConfig",
    lambda: variations(torch.zeros(1, 3, 256, 256) + 0.5), ("pixel_values",), hidden_size=384,
    num_hidden_layers=2, num_attention_heads=6, image_size=256, window_size=7,
    global_attn_indexes=[1], output_channels=128, num_pos_feats=64,
)  # fmt: skip

"""One decoder for all architectures: tokens and a position in, logits of the last token out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from penstock.llm.export.cached import rows_of
from penstock.llm.export.config import DecoderConfig
from penstock.llm.export.layers import INT8, Embedding, Linear, per_row
from penstock.llm.export.rope import Rope

#: What hides a position: its weight in the softmax is exactly 0, and no infinity arises.
HIDDEN = -1e9


class Norm(nn.Module):
    """Root mean square norm over the last dimension; ``offset`` is added to the weight."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, device="meta"), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    """Attention over a cache: keys and values [1, key heads, longest, head size], in which the
    rows of the new tokens are written first. ``cache`` is one of :data:`CACHES`."""

    def __init__(self, config: DecoderConfig, index: int, longest: int, cache: str) -> None:
        super().__init__()
        self.config = config
        self.turned = index not in config.unturned
        size, keys = config.head_size, config.key_heads * config.head_size
        self.query = Linear(config.width, config.heads * size, bias=config.query_bias)
        self.key = Linear(config.width, keys, bias=config.query_bias)
        self.value = Linear(config.width, keys, bias=config.query_bias)
        self.output = Linear(config.heads * size, config.width, bias=config.output_bias)
        whole = config.query_key_norms == "whole"
        if config.query_key_norms:
            queries = config.heads * size
            self.query_norm = Norm(queries if whole else size, config.norm_epsilon)
            self.key_norm = Norm(keys if whole else size, config.norm_epsilon)
        self.keys = rows_of(cache, config.key_heads, longest, size)
        self.values = rows_of(cache, config.key_heads, longest, size)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, angles: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        config, tokens = self.config, x.shape[1]
        query, key = self.query(x), self.key(x)
        if config.query_key_norms == "whole":
            query, key = self.query_norm(query), self.key_norm(key)
        query = query.view(1, tokens, config.heads, config.head_size)
        key = key.view(1, tokens, config.key_heads, config.head_size)
        value = self.value(x).view(1, tokens, config.key_heads, config.head_size)
        if config.query_key_norms == "head":
            query, key = self.query_norm(query), self.key_norm(key)
        if self.turned:
            query, key = _turned(query, angles), _turned(key, angles)
        keys, values = self.keys(positions, key), self.values(positions, value)
        seen = self._attend(query.transpose(1, 2), keys, values, mask)
        result: torch.Tensor = self.output(seen.transpose(1, 2).reshape(1, tokens, -1))
        return result

    def _attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        config = self.config
        if not config.score_cap:
            return functional.scaled_dot_product_attention(
                query, keys, values, mask, scale=config.score_scale, enable_gqa=True
            )
        times = config.heads // config.key_heads
        keys, values = (x.repeat_interleave(times, 1) for x in (keys, values))
        scores = query @ keys.transpose(2, 3) * (config.score_scale / config.score_cap)
        return (torch.tanh(scores) * config.score_cap + mask).softmax(-1) @ values


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """x [1, tokens, heads, size] turned by ``angles`` [tokens, 2 * size]: cosines, and sines with
    their signs."""
    size = x.shape[-1]
    cosine, sine = angles[:, None, :size], angles[:, None, size:]
    first, second = x[..., : size // 2], x[..., size // 2 :]
    return x * cosine + torch.cat((second, first), -1) * sine


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """``down(activation(gate(x)) * up(x))``."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        bias = config.feed_forward_bias
        self.gate = Linear(config.width, config.feed_forward, bias=bias)
        self.up = Linear(config.width, config.feed_forward, bias=bias)
        self.down = Linear(config.feed_forward, config.width, bias=bias)
        self.activation = config.activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x)
        result: torch.Tensor = self.down(_ACTIVATIONS[self.activation](gate) * self.up(x))
        return result


class Layer(nn.Module):
    """Attention and feed-forward beside the residual, with norms before them, behind them, or
    both."""

    def __init__(self, config: DecoderConfig, index: int, longest: int, cache: str) -> None:
        super().__init__()

        def norm(place: str) -> nn.Module:
            there = config.norms in (place, "both")
            return Norm(config.width, config.norm_epsilon) if there else nn.Identity()

        self.attention_norm = norm("before")
        self.attention = Attention(config, index, longest, cache)
        self.norm_behind_attention = norm("behind")
        self.feed_forward_norm = norm("before")
        self.feed_forward = FeedForward(config)
        self.norm_behind_feed_forward = norm("behind")

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, angles: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        seen = self.attention(self.attention_norm(x), positions, angles, mask)
        x = x + self.norm_behind_attention(seen)
        made = self.feed_forward(self.feed_forward_norm(x))
        result: torch.Tensor = x + self.norm_behind_feed_forward(made)
        return result


class Decoder(nn.Module):
    """A language model with its cache of keys and values in buffers.

    ``forward(tokens, start)`` takes int64 [1, tokens] and the position of the first of them, int64
    [1]; writes their rows into the cache from there on; and returns the logits of the last one,
    float32 [1, vocabulary]. Rows from ``start`` on need not be cleared before.
    """

    def __init__(self, config: DecoderConfig, longest: int, cache: str = "float32") -> None:
        super().__init__()
        self.config, self.longest = config, longest
        self.embedding = Embedding(config.vocabulary, config.width)
        layers = range(len(config.layers))
        self.layers = nn.ModuleList(Layer(config, i, longest, cache) for i in layers)
        self.norm = Norm(config.width, config.norm_epsilon)
        self.head = Linear(config.width, config.vocabulary, bias=False)
        self.angles: torch.Tensor
        self.columns: torch.Tensor
        ropes = [config.ropes[0]]
        if any(config.layers):
            ropes.append(config.ropes[1])
        table = torch.cat([_table(rope, longest, config.head_size) for rope in ropes], 1)
        self.register_buffer("angles", table, persistent=False)
        self.register_buffer("columns", torch.arange(longest), persistent=False)

    def tie(self) -> None:
        """Makes the head compute with the embedding's weight."""
        self.head.weight = self.embedding.weight

    def quantize_table(self, largest: torch.Tensor | None = None) -> None:
        """Rounds the embedding to 8 bits, and the head that shares it: one datum for both.

        With ``largest``, the largest integer of each token's row (int64 [vocabulary]), the head has
        no larger ones, also where it has weights of its own.
        """
        limit = INT8[1] if largest is None else largest
        self.embedding.quantize(limit if self.config.tied else INT8[1])
        if self.config.tied:
            self.head.take_rows(self.embedding.integers, self.embedding.scales)
            self.head.zero_points = self.embedding.zero_points
        elif largest is not None and self.head.weight is not None:
            self.head.take_rows(*per_row(self.head.weight.detach(), largest))

    def forward(self, tokens: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        config = self.config
        positions = start + torch.arange(tokens.shape[1])
        x = self.embedding(tokens)
        if config.embedding_scale != 1.0:
            x = x * config.embedding_scale
        angles = functional.embedding(positions, self.angles)
        every, some = angles, angles
        # In integers, so by kernels: the one delegate is then behind all of them.
        seen = self.columns <= positions[:, None]
        mask = window = torch.where(seen, 0.0, HIDDEN)
        if any(config.layers):
            half = 2 * config.head_size
            every, some = angles[:, :half], angles[:, half:]
            near = self.columns > positions[:, None] - config.window
            window = torch.where(seen & near, 0.0, HIDDEN)
        for layer, windowed in zip(self.layers, config.layers, strict=True):
            x = layer(x, positions, some if windowed else every, window if windowed else mask)
        logits: torch.Tensor = self.head(self.norm(x[:, -1]))
        if config.logit_cap:
            logits = torch.tanh(logits / config.logit_cap) * config.logit_cap
        return logits


def _table(rope: Rope, longest: int, size: int) -> torch.Tensor:
    """Cosines, and sines with the sign of the half they are for, float32 [longest, 2 * size]. Pairs
    that stay come last in the halves."""
    steps = torch.tensor(rope.inverse_frequencies, dtype=torch.float32)
    turned = torch.arange(longest, dtype=torch.float32)[:, None] * steps
    stay = (0, size // 2 - len(steps))
    cosine = functional.pad(turned.cos() * rope.factor, stay, value=1.0)
    sine = functional.pad(turned.sin() * rope.factor, stay)
    return torch.cat((cosine, cosine, -sine, sine), 1)

"""What a decoder is made of, whichever file said it: :class:`DecoderConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InputError, UnsupportedError, shorten
from penstock.llm.export.families import FAMILIES, Family
from penstock.llm.export.rope import LONG, Rope, is_real, kind_of, rope

#: Beyond these a number is a mistake, or there to exhaust the machine.
MOST_LAYERS, LARGEST = 4096, (1 << 31) - 1


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes and the variations of one decoder.

    ``layers`` has for each layer whether it sees ``window`` positions only; ``ropes`` the angles
    of the layers that see all, and of those that see a window. ``unturned`` are the layers without
    rotary embeddings.
    """

    architecture: str
    vocabulary: int
    width: int
    feed_forward: int
    heads: int
    key_heads: int
    head_size: int
    layers: tuple[bool, ...]
    ropes: tuple[Rope, Rope]
    norm_epsilon: float
    longest: int
    tied: bool
    activation: str = "silu"
    window: int = 0
    query_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    #: see :class:`~penstock.llm.export.families.Family`
    query_key_norms: str = ""
    norms: str = "before"
    norm_offset: bool = False
    fused: bool = False
    unturned: frozenset[int] = frozenset()
    score_scale: float = 0.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    embedding_scale: float = 1.0
    #: what attention and feed-forward add is multiplied by this, and logits divided
    residual_scale: float = 1.0
    logit_divisor: float = 1.0

    def __post_init__(self) -> None:
        counts = {
            "vocabulary": self.vocabulary, "hidden size": self.width, "heads": self.heads,
            "key-value heads": self.key_heads, "head size": self.head_size,
            "feed-forward size": self.feed_forward, "layers": len(self.layers),
            "longest context": self.longest,
        }  # fmt: skip
        for name, count in counts.items():
            if not 1 <= count <= LARGEST:
                raise InputError(
                    f"the configuration has {name} {shorten(count)}; it must be 1 or more, and a "
                    "size that a machine can hold"
                )
        if self.heads % self.key_heads:
            raise InputError(
                f"the configuration has {self.heads} heads on {self.key_heads} key-value heads; "
                "the one must be a multiple of the other"
            )
        if self.head_size % 2:
            raise UnsupportedError(f"a head size of {self.head_size}, which is odd, is unsupported")
        numbers = {
            "epsilon": self.norm_epsilon, "scale of scores": self.score_scale,
            "cap of scores": self.score_cap, "cap of logits": self.logit_cap,
            "scale of embeddings": self.embedding_scale,
            "scale of residuals": self.residual_scale,
        }  # fmt: skip
        for name, number in numbers.items():
            if not is_real(number) or number < 0:
                raise InputError(f"the configuration has an {name} of {number}; make it a number")
        if not is_real(self.logit_divisor) or self.logit_divisor <= 0:
            raise InputError(
                f"the configuration divides logits by {self.logit_divisor}; it must be above 0"
            )


def layer_count(value: Any) -> int:
    """How many layers there are: before as many of anything are made."""
    count = int(value)
    if count > MOST_LAYERS:
        raise InputError(
            f"the configuration has {shorten(count)} layers; at most {MOST_LAYERS} are supported"
        )
    return count


def from_transformers(raw: Mapping[str, Any]) -> DecoderConfig:
    """The configuration in a ``config.json``.

    Raises :class:`UnsupportedError` for an architecture, or a variation of one, that the decoder
    has not; :class:`InputError` where an entry is missing or makes no sense.
    """
    kind = str(raw.get("model_type", ""))
    if kind == "gemma3" and isinstance(raw.get("text_config"), Mapping):
        inner = {"model_type": "gemma3_text", **raw["text_config"]}
        return from_transformers({**inner, "model_type": "gemma3_text"})
    if kind not in FAMILIES:
        called = shorten(kind) or "without a name (config.json has no model_type)"
        raise UnsupportedError(
            f"the architecture {called} is unsupported; {', '.join(FAMILIES)} are supported"
        )
    try:
        return _from_transformers(kind, raw)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        reason = shorten(error)
        what = f"has no {reason}" if isinstance(error, KeyError) else f"makes no sense: {reason}"
        raise InputError(f"the configuration of the {kind} model {what}") from error


_ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu",
}  # fmt: skip


def _from_transformers(kind: str, raw: Mapping[str, Any]) -> DecoderConfig:
    family = FAMILIES[kind]
    heads, width = int(raw["num_attention_heads"]), int(raw["hidden_size"])
    layers = layer_count(raw["num_hidden_layers"])
    size = int(raw.get("head_dim") or family.head_size or width // heads)
    longest = int(raw.get("max_position_embeddings") or 2048)
    _refuse_extras(raw)
    parameters = _rope_parameters(raw)
    bias = bool(raw.get("attention_bias", family.bias)) or (family.bias and not family.output_bias)
    kinds = _windowed(family, raw, layers)
    scale = float(raw.get("embedding_multiplier") or 1.0)
    return DecoderConfig(
        architecture=kind,
        vocabulary=int(raw["vocab_size"]),
        width=width,
        feed_forward=int(raw["intermediate_size"]),
        heads=heads,
        key_heads=int(raw.get("num_key_value_heads") or heads),
        head_size=size,
        layers=kinds,
        ropes=_ropes(raw, parameters, _turned_size(family, parameters, size), longest),
        norm_epsilon=float(raw.get("rms_norm_eps", 1e-6)),
        longest=_longest(parameters, longest),
        tied=bool(raw.get("tie_word_embeddings", family.tied)),
        activation=_activation(family, raw),
        window=int(raw.get("sliding_window") or 0) if any(kinds) else 0,
        query_bias=bias and not family.fused,
        output_bias=bool(raw.get(family.output_bias)) if family.output_bias else False,
        feed_forward_bias=bool(raw.get("mlp_bias", False)) and not family.fused,
        query_key_norms=family.query_key_norms,
        norms=family.norms,
        norm_offset=family.norm_offset,
        fused=family.fused,
        unturned=_unturned(raw, layers),
        score_scale=_score_scale(family, raw, size),
        score_cap=float(raw.get("attn_logit_softcapping") or 0.0) if family.score_caps else 0.0,
        logit_cap=float(raw.get("final_logit_softcapping") or 0.0) if family.logit_caps else 0.0,
        embedding_scale=scale * width**0.5 if family.scaled_embedding else scale,
        residual_scale=float(raw.get("residual_multiplier") or 1.0),
        logit_divisor=float(raw.get("logits_scaling") or 1.0),
    )


def _activation(family: Family, raw: Mapping[str, Any]) -> str:
    # Gemma's own entry: the other says ``gelu`` in its oldest files, and means this one.
    gemma = family.activation != "silu"
    found = raw.get("hidden_activation") or (None if gemma else raw.get("hidden_act"))
    name = str(found or family.activation)
    if name not in _ACTIVATIONS:
        raise UnsupportedError(f"the activation {shorten(name)!r} is unsupported in a decoder")
    return _ACTIVATIONS[name]


def _score_scale(family: Family, raw: Mapping[str, Any], size: int) -> float:
    given = raw.get("attention_multiplier")
    if given is not None:
        return float(given)
    scalar = raw.get("query_pre_attn_scalar") if family.query_scalar else None
    return float(float(scalar or size) ** -0.5)


def _unturned(raw: Mapping[str, Any], layers: int) -> frozenset[int]:
    """The layers without rotary embeddings: 0 in a list, or each so many'th."""
    turned, every = raw.get("no_rope_layers"), raw.get("no_rope_layer_interval")
    if turned:
        if len(turned) != layers:
            raise InputError(f"no_rope_layers has {len(turned)} entries for {layers} layers")
        return frozenset(i for i, one in enumerate(turned) if not one)
    if not every:
        return frozenset()
    return frozenset(range(int(every) - 1, layers, int(every)))


def _refuse_extras(raw: Mapping[str, Any]) -> None:
    for name in ("num_local_experts", "num_experts", "kv_lora_rank"):
        if raw.get(name):
            raise UnsupportedError(
                f"{name}={shorten(raw[name])} in the configuration is unsupported"
            )
    if raw.get("use_bidirectional_attention"):
        raise UnsupportedError("attention in both directions is unsupported in a decoder")


def _windowed(family: Family, raw: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """Which layers see a window only."""
    if not raw.get("sliding_window") or family.windows == "none":
        return (False,) * layers
    named = raw.get("layer_types")
    if named:
        if len(named) != layers:
            raise InputError(f"layer_types has {len(named)} entries for {layers} layers")
        wrong = [name for name in named if name not in ("full_attention", "sliding_attention")]
        if wrong:
            raise UnsupportedError(f"layers of the kind {shorten(wrong[0])} are unsupported")
        return tuple(name == "sliding_attention" for name in named)
    if family.windows == "all":
        return (True,) * layers
    if family.windows == "even":
        return tuple(i % 2 == 0 for i in range(layers))
    if family.windows == "pattern":
        pattern = int(raw.get("sliding_window_pattern", raw.get("_sliding_window_pattern", 6)))
        return tuple((i + 1) % pattern != 0 for i in range(layers))
    if not raw.get("use_sliding_window", False):
        return (False,) * layers
    return tuple(i >= int(raw.get("max_window_layers", 28)) for i in range(layers))


def _rope_parameters(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of rotary embeddings, wherever it does."""
    names = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    plain = {key: raw[key] for key in names if raw.get(key) is not None}
    return {**plain, **dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})}


def _turned_size(family: Family, parameters: Mapping[str, Any], size: int) -> int:
    """How much of each head is turned."""
    part = float(parameters.get("partial_rotary_factor") or 1.0)
    if part == 1.0:
        return size
    turned = int(size * part)
    if not family.partial or not 2 <= turned <= size or turned % 2:
        raise UnsupportedError(
            f"rotary embedding of a part of each head ({part}) is unsupported here"
        )
    return turned


def _longest(parameters: Mapping[str, Any], longest: int) -> int:
    if kind_of(parameters) not in LONG:
        return longest
    return min(longest, int(parameters["original_max_position_embeddings"]))


def _ropes(
    raw: Mapping[str, Any], parameters: Mapping[str, Any], size: int, longest: int
) -> tuple[Rope, Rope]:
    given = raw.get("rope_parameters")
    if isinstance(given, Mapping) and "full_attention" in given:
        every, some = given["full_attention"], given.get("sliding_attention", {})
        return rope(every, size, longest), rope(some, size, longest)
    if raw.get("model_type") == "gemma3_text":
        everywhere = {"rope_theta": 1e6, **parameters}
        local = {"rope_theta": raw.get("rope_local_base_freq", 1e4)}
        return rope(everywhere, size, longest), rope(local, size, longest)
    one = rope(parameters, size, longest)
    return one, one

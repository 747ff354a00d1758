"""Rotary position embeddings, and the ways in which longer contexts scale them: :class:`Rope`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InputError, UnsupportedError, shorten

#: Beyond this a number is a mistake, or there to exhaust the machine.
LARGEST_HEAD = 1 << 16


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: the angle by which each pair turns from a position to the next,
    and a factor on cosine and sine. There may be fewer pairs than a head has: the others stay."""

    inverse_frequencies: tuple[float, ...]
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not all(map(is_real, (*self.inverse_frequencies, self.factor))):
            raise InputError("the configuration's rotary embedding has angles that are no numbers")


def is_real(number: object) -> bool:
    """Roots and powers of hostile numbers are complex, too."""
    return isinstance(number, float | int) and math.isfinite(number)


def inverse_frequencies(base: float, size: int) -> tuple[float, ...]:
    if size > LARGEST_HEAD:
        raise InputError(f"the configuration has heads of the size {shorten(size)}; it is damaged")
    return tuple(base ** (-2 * i / size) for i in range(size // 2))


def rope(parameters: Mapping[str, Any], size: int, longest: int) -> Rope:
    """Rotary angles from ``rope_parameters`` in transformers' terms.

    Raises :class:`UnsupportedError` for scaling that is not known.
    """
    kind = kind_of(parameters)
    plain = inverse_frequencies(float(parameters.get("rope_theta") or 10000.0), size)
    if kind in ("default", "dynamic"):  # which is the same up to ``longest`` positions
        return Rope(plain)
    if kind == "linear":
        factor = float(parameters["factor"])
        return Rope(tuple(frequency / factor for frequency in plain))
    if kind == "llama3":
        return Rope(tuple(_llama3(frequency, parameters) for frequency in plain))
    if kind == "yarn":
        return _yarn(parameters, plain, size, longest)
    if kind in LONG:
        return _longrope(parameters, plain, longest)
    raise UnsupportedError(
        f"rope scaling {shorten(kind)!r} is unsupported; default, dynamic, linear, llama3, "
        "longrope and yarn are supported"
    )


#: Names of one scaling.
LONG = ("longrope", "su")


def kind_of(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type", parameters.get("type", "default")) or "default")


def _longrope(parameters: Mapping[str, Any], plain: tuple[float, ...], longest: int) -> Rope:
    """The angles of contexts up to the original length: beyond it others hold, for all positions,
    which would make those in the cache wrong."""
    original = float(parameters["original_max_position_embeddings"])
    divisors = [float(one) for one in parameters["short_factor"]]
    if len(divisors) != len(plain):
        raise InputError(f"short_factor has {len(divisors)} entries for {len(plain)} pairs")
    given = parameters.get("attention_factor")
    if given is None:
        times = float(parameters.get("factor") or longest / original)
        given = math.sqrt(1 + math.log(times) / math.log(original)) if times > 1 else 1.0
    turned = (f / by for f, by in zip(plain, divisors, strict=True))
    return Rope(tuple(turned), float(given))


def _llama3(frequency: float, parameters: Mapping[str, Any]) -> float:
    factor = float(parameters["factor"])
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    original = float(parameters["original_max_position_embeddings"])
    turns = original * frequency / (2 * math.pi)
    if turns < low:
        return frequency / factor
    if turns > high:
        return frequency
    smooth = (turns - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


def _yarn(parameters: Mapping[str, Any], plain: tuple[float, ...], size: int, longest: int) -> Rope:
    """Interpolates the slow pairs, leaves the fast ones, and mixes in between."""
    factor, base = float(parameters["factor"]), float(parameters.get("rope_theta") or 10000.0)
    original = float(parameters.get("original_max_position_embeddings") or longest)

    def pair_of(turns: float) -> float:
        return size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = pair_of(float(parameters.get("beta_fast") or 32))
    high = pair_of(float(parameters.get("beta_slow") or 1))
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    span = max(high - low, 0.001)
    mixed = []
    for index, frequency in enumerate(plain):
        ramp = min(max((index - low) / span, 0.0), 1.0)
        mixed.append(frequency / factor * ramp + frequency * (1 - ramp))
    given = parameters.get("attention_factor")
    if given is None:
        scale, all_dims = parameters.get("mscale"), parameters.get("mscale_all_dim")
        if scale and all_dims:
            given = _attention(factor, float(scale)) / _attention(factor, float(all_dims))
        else:
            given = _attention(factor, 1.0)
    return Rope(tuple(mixed), float(given))


def _attention(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

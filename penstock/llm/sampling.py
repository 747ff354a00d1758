"""From logits to the next token: :class:`Options` and :class:`Sampler`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from penstock.errors import InputError

_NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Options:
    """How an answer is made.

    Attributes:
        max_tokens: the answer's longest length; ``None`` for what the context has room for.
        temperature: 0 takes the likeliest token each time; 1 draws by the model's probabilities;
            less than 1 prefers likely ones.
        top_k: draw among so many of the likeliest; 0 for all.
        top_p: draw among the likeliest that have this share of the probability together.
        min_p: draw among those with this share of the likeliest one's probability.
        repetition_penalty: divides the logits of tokens that the context has already (multiplies
            negative ones).
        seed: the same one gives the same answer again; ``None`` draws anew each time.
        stop: texts that end an answer; they are not part of it.
        overflow: at the context's end ``"error"``, or ``"slide"``: the older half is forgotten and
            the rest read again.
        logprobs: also give the logarithms of the tokens' probabilities.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    overflow: str = "error"
    logprobs: bool = False

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            if not isinstance(getattr(self, name), (int, float, np.number)):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a number")
        for name in ("max_tokens", "seed", "top_k"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) and (value is not None or name == "top_k"):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be an integer")
        rules = {
            "max_tokens": (self.max_tokens is None or self.max_tokens >= 1, "1 or more"),
            "temperature": (0 <= self.temperature < float("inf"), "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, and 1 or less"),
            "min_p": (0 <= self.min_p < 1, "0 or more, and less than 1"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0"),
            "seed": (self.seed is None or self.seed >= 0, "0 or more"),
            "overflow": (self.overflow in ("error", "slide"), "'error' or 'slide'"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")
        if not isinstance(self.stop, Iterable):
            raise InputError(f"stop is {self.stop!r}; it must be a text, or a list of texts")
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(isinstance(text, str) and text for text in stops):
            raise InputError(f"stop is {self.stop!r}; it must be texts that are not empty")
        object.__setattr__(self, "stop", stops)

    @classmethod
    def made(cls, defaults: Options, given: Mapping[str, Any]) -> Options:
        """``defaults`` with what was given. Raises :class:`InputError` for unknown names."""
        known = {one.name for one in fields(cls)}
        wrong = sorted(set(given) - known)
        if wrong:
            raise InputError(
                f"unknown option {wrong[0]!r}; the options are {', '.join(sorted(known))}"
            )
        return replace(defaults, **given)


class Sampler:
    """Draws tokens by :class:`Options`, with random numbers of its own."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._random: np.random.Generator | None = None

    def __call__(self, logits: np.ndarray, context: Iterable[int]) -> int:
        """The next token for ``logits`` float32 [vocabulary] behind the tokens ``context``."""
        options = self.options
        if options.temperature == 0.0 or options.top_k == 1:
            return int(_penalized(logits, context, options.repetition_penalty).argmax())
        if self._random is None:  # 6 MB that who takes the likeliest token does without
            self._random = np.random.default_rng(options.seed)
        tokens, weights = likeliest(logits, context, options)
        sums = np.cumsum(weights)
        drawn = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        return int(tokens[min(drawn, len(tokens) - 1)])


def _penalized(logits: np.ndarray, context: Iterable[int], penalty: float) -> np.ndarray:
    if penalty == 1.0:
        return logits
    seen = np.unique(np.fromiter(context, np.int64))
    seen = seen[(seen >= 0) & (seen < len(logits))]
    result = logits.copy()
    chosen = result[seen]
    result[seen] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return result


def likeliest(
    logits: np.ndarray, context: Iterable[int], options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens to draw among behind ``context``, in ascending order, and their weights: what
    transformers' processors leave, in their order: repetition penalty, temperature, top-k, top-p,
    min-p. As there, top-k keeps all that are as likely as the last one that it keeps."""
    logits = _penalized(logits, context, options.repetition_penalty)
    if 0 < options.top_k < len(logits):
        least = np.partition(logits, -options.top_k)[-options.top_k]
        tokens = np.flatnonzero(logits >= least)
    else:
        tokens = np.arange(len(logits))
    with np.errstate(over="ignore"):  # next to nothing divides to infinity, whose weight is 0
        scaled = (logits[tokens].astype(np.float64) - float(logits.max())) / options.temperature
    weights = np.exp(scaled)
    kept = np.ones(len(tokens), np.bool_)
    if options.top_p < 1:
        kept = _nucleus(weights, options.top_p)
    if options.min_p > 0:
        kept &= weights >= options.min_p  # the likeliest one's weight is 1
    return tokens[kept], weights[kept]


def _nucleus(weights: np.ndarray, share: float) -> np.ndarray:
    """Which of the tokens are the likeliest that have ``share`` of the weight together."""
    total = float(weights.sum())
    # Those that are less likely than this have less than 1 - share together: need no sorting.
    some = np.flatnonzero(weights >= (1 - share) * total / len(weights))
    some = some[np.argsort(-weights[some], kind="stable")]
    enough = int(np.searchsorted(np.cumsum(weights[some]), share * total)) + 1
    kept = np.zeros(len(weights), np.bool_)
    kept[some[:enough]] = True
    return kept


def log_probability(logits: np.ndarray, token: int) -> float:
    """The logarithm of a token's probability, by the model's own logits."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[token] - np.log(np.exp(shifted).sum()))

"""What a language model said: :class:`Answer`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Answer:
    """What was generated, and how long it took.

    ``text`` is the answer, of ``tokens``; ``seconds_to_first`` passed until the first of them,
    ``seconds`` in all. ``finish`` says why it ended: ``"end"`` (the model's own end), ``"stop"`` (a
    stop string), ``"length"`` (``max_tokens``) or ``"context"`` (no room). ``logprobs`` has one for
    each token if they were asked for. ``read`` tokens were new in the
    prompt; the others were in the cache.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: str = ""
    logprobs: list[float] = field(default_factory=list)
    read: int = 0
    seconds_to_first: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of the answer, from its second token on."""
        spent = self.seconds - self.seconds_to_first
        return (len(self.tokens) - 1) / spent if len(self.tokens) > 1 and spent > 0 else 0.0

    def __str__(self) -> str:
        return self.text

"""How much accuracy quantization may cost. Knows no torch, as :mod:`.quantization`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from penstock.errors import QuantizationError
from penstock.text import counted


@dataclass(frozen=True)
class AccuracyBudget:
    """What a quantized model must reach; as many layers as that needs stay in float.

    Either ``sqnr``: the ratio in decibels of the power of the float model's result to that of the
    error, for each of the results, over the held-out data. (20 dB is an error of a tenth, 40 dB of
    a hundredth.)

    Or ``metric``, with ``allowed_drop``: a function that takes a model and returns a number, more
    is better. It calls what it is given as it would call the model itself, on data of its own, and
    computes the number from what comes back (tensors, in the structure that the model returns).
    It is called for the float model, then for each mixture of int8 and float that is tried,
    whose numbers may be lower than the float model's by at most ``allowed_drop``, a difference and
    not a share (0.002 of an accuracy of 0.9 allows 0.898). It must be deterministic::

        def accuracy(model):
            return sum(int(model(x).argmax() == label) for x, label in held_out) / len(held_out)

        AccuracyBudget(metric=accuracy, allowed_drop=0.002)

    ``trials`` limits how many mixtures are tried.

    Raises :class:`~penstock.errors.QuantizationError` for a budget that says nothing or both.
    """

    sqnr: float | None = None
    metric: Callable[[Callable[..., Any]], float] | None = None
    allowed_drop: float = 0.0
    trials: int = 48

    def __post_init__(self) -> None:
        if (self.sqnr is None) == (self.metric is None):
            raise QuantizationError(
                "an accuracy budget is either sqnr (in dB) or a metric with an allowed_drop"
            )
        if self.sqnr is not None and not _is_number(self.sqnr):
            raise QuantizationError(f"the budget's sqnr is {self.sqnr!r}; give a number of dB")
        if self.sqnr is not None and self.allowed_drop:
            raise QuantizationError(
                f"allowed_drop is {self.allowed_drop!r} and goes with a metric, not with sqnr"
            )
        if self.metric is not None and not callable(self.metric):
            raise QuantizationError(f"the budget's metric is {self.metric!r}; give a function")
        if not _is_number(self.allowed_drop) or self.allowed_drop < 0:
            raise QuantizationError(
                f"allowed_drop is {self.allowed_drop!r}; give a number, 0 or more"
            )
        if not isinstance(self.trials, int) or isinstance(self.trials, bool) or self.trials < 1:
            raise QuantizationError(f"trials is {self.trials!r}; give 1 or more")


def _is_number(value: object) -> bool:
    """NumPy's numbers are some too."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class KeptLayer:
    """An operator that stays in float for the accuracy: ``chosen`` by the search, or because int8
    does not pay beside those."""

    node: str
    operator: str
    module: str
    chosen: bool


@dataclass(frozen=True)
class BudgetOutcome:
    """What an accuracy budget came to.

    ``unit`` is ``dB`` or ``metric``; ``asked`` is what was to be reached, ``floating``, ``int8``
    and ``reached`` what the float model has, the fully quantized one, and this one (``floating`` is
    infinite for decibels). ``kept`` stays in float; ``observers`` are those that are not the
    default. The extra bytes and seconds are beside the fully quantized model; the seconds are
    estimated, see ``times``. ``data`` says what the ratios were measured on.
    """

    unit: str
    asked: float
    floating: float
    int8: float
    reached: float
    kept: tuple[KeptLayer, ...]
    observers: dict[str, str]
    trials: int
    data: str
    extra_bytes: int = 0
    extra_seconds: float = 0.0
    times: str = field(default="estimated")

    @property
    def chosen(self) -> tuple[KeptLayer, ...]:
        return tuple(layer for layer in self.kept if layer.chosen)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; infinite numbers are ``null``."""
        from dataclasses import asdict

        found = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        return found

    def __str__(self) -> str:
        lines = [self.summary()]
        others = len(self.kept) - len(self.chosen)
        for layer in self.chosen:
            lines.append(f"  in float: {layer.node} ({layer.operator}) {layer.module}".rstrip())
        if others:
            lines.append(f"  and {others} beside these, where int8 would not pay")
        for kind in sorted(set(self.observers.values())):
            names = [name for name, observer in self.observers.items() if observer == kind]
            lines.append(f"  observer {kind}: {', '.join(names)}")
        return "\n".join(lines)

    def summary(self) -> str:
        """One line."""
        text = (
            f"{self._shown(self.reached)} (asked: {self._shown(self.asked)}, all in int8: "
            f"{self._shown(self.int8)}) with {counted(len(self.chosen), 'operator')} kept in float"
        )
        if self.kept:
            text += (
                f", +{self.extra_bytes / 1e3:.1f} kB and +{self.extra_seconds * 1e6:.0f} us "
                f"({self.times.split()[0]})"
            )
        return f"{text}; {self.data}, {counted(self.trials, 'trial')}"

    def _shown(self, value: float) -> str:
        return f"{value:.1f} dB" if self.unit == "dB" else f"{value:.5g}"

"""How much accuracy quantization may cost. Knows no torch, as :mod:`.quantization`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

from penstock.errors import QuantizationError
from penstock.text import counted

#: Takes a model, returns a number, or one for each sample.
Metric: TypeAlias = Callable[[Callable[..., Any]], Any]


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

    A metric may also return a number for each sample (a list, an array, a tensor), whose mean
    counts: then the outcome says how far a difference may be chance, and whether there are samples
    enough to show ``allowed_drop`` at all.

    The search takes what its metric likes, which flatters. ``held_out`` is a metric on data of its
    own that the search does not see; its numbers for float, int8 and what was chosen are reported.

    ``trials`` limits how many mixtures are tried.

    Raises :class:`~penstock.errors.QuantizationError` for a budget that says nothing or both.
    """

    sqnr: float | None = None
    metric: Metric | None = None
    allowed_drop: float = 0.0
    trials: int = 48
    held_out: Metric | None = None

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
        if self.held_out is not None and self.metric is None:
            raise QuantizationError(
                "held_out goes with a metric; for sqnr give held-out data to lower() or quantize()"
            )
        if self.held_out is not None and not callable(self.held_out):
            raise QuantizationError(
                f"the budget's held_out is {self.held_out!r}; give a function, as metric is"
            )
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
class HeldOutScores:
    """What the metric on data that the search did not see gives for the float model, the fully
    quantized one and the chosen one. ``samples`` and ``uncertainty`` as in
    :class:`BudgetOutcome`."""

    floating: float
    int8: float
    reached: float
    samples: int | None = None
    uncertainty: float | None = None


@dataclass(frozen=True)
class BudgetOutcome:
    """What an accuracy budget came to.

    ``unit`` is ``dB`` or ``metric``; ``asked`` is what was to be reached, ``floating``, ``int8``
    and ``reached`` what the float model has, the fully quantized one, and this one (``floating`` is
    infinite for decibels). ``kept`` stays in float; ``observers`` are those that are not the
    default. The extra bytes and seconds are beside the fully quantized model; the seconds are
    estimated, see ``times``. ``data`` says what the ratios were measured on.

    Where the metric gives a number for each of ``samples``, ``reached - floating`` is known to
    ``uncertainty`` to either side, with 95 % confidence, as far as the search has not chosen what
    suits these samples: ``held_out`` has it on others. ``warning`` says that the samples are too
    few to show the allowed drop.
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
    samples: int | None = None
    uncertainty: float | None = None
    warning: str | None = None
    held_out: HeldOutScores | None = None

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
        if self.warning is not None:
            lines.append(f"  warning: {self.warning}")
        if self.held_out is not None:
            found = self.held_out
            lines.append(
                f"  held out: {found.reached:.5g}{_sure(found.samples, found.uncertainty)} "
                f"(float: {found.floating:.5g}, all in int8: {found.int8:.5g})"
            )
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
        reached = self._shown(self.reached) + _sure(self.samples, self.uncertainty)
        text = (
            f"{reached} (asked: {self._shown(self.asked)}, all in int8: {self._shown(self.int8)}) "
            f"with {counted(len(self.chosen), 'operator')} kept in float"
        )
        if self.kept:
            text += (
                f", +{self.extra_bytes / 1e3:.1f} kB and +{self.extra_seconds * 1e6:.0f} us "
                f"({self.times.split()[0]})"
            )
        return f"{text}; {self.data}, {counted(self.trials, 'trial')}"

    def _shown(self, value: float) -> str:
        return f"{value:.1f} dB" if self.unit == "dB" else f"{value:.5g}"


def _sure(samples: int | None, uncertainty: float | None) -> str:
    if samples is None or uncertainty is None:
        return ""
    return f" +- {uncertainty:.2g} of {counted(samples, 'sample')}"

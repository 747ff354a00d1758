"""Quantizes within an accuracy budget: the fewest operators stay in float that it takes.

The fully quantized graph comes first. If it falls short, one look at the derivative of the results
tells how much of their error each rounding makes (:mod:`.noise`): which observer suits a value, and
in which order operators go to float. Then mixtures are simulated, not compiled (:mod:`.search`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from torch.fx import GraphModule

from penstock.compiler.delegate.operators.registry import Recurrent, Weighted
from penstock.compiler.progress import Progress
from penstock.compiler.quantize.accuracy import AccuracyBudget, BudgetOutcome, KeptLayer
from penstock.compiler.quantize.calibrate import Batches
from penstock.compiler.quantize.cost import ESTIMATE
from penstock.compiler.quantize.costs import Costs
from penstock.compiler.quantize.interpreter import Snapshot
from penstock.compiler.quantize.judge import Judge, MetricJudge, RatioJudge, Structure
from penstock.compiler.quantize.measure import Measured, Sums
from penstock.compiler.quantize.mixtures import (
    Mixture,
    Mixtures,
    Statistics,
    activation_observer,
    gather,
)
from penstock.compiler.quantize.noise import BATCHES, Noise, find_noise
from penstock.compiler.quantize.observers import (
    ACTIVATION_OBSERVERS,
    HistogramActivationObserver,
)
from penstock.compiler.quantize.quantization import Observer
from penstock.compiler.quantize.report import QuantizationReport
from penstock.compiler.quantize.search import Floats, Search
from penstock.errors import QuantizationError
from penstock.text import counted

#: The bias correction looks at so many batches.
CORRECTION_BATCHES = 8

#: The reason of what stays in float for the budget.
KEPT = "the accuracy budget keeps it in float"


@dataclass
class Budgeted:
    """What came of a budget: the mixture, and what is known of it."""

    mixture: Mixture
    outcome: BudgetOutcome
    statistics: Statistics


def within_budget(
    module: GraphModule,
    base: Mixture,
    masked: Mapping[str, str],
    budget: AccuracyBudget,
    batches: Batches,
    unseen: Batches | None,
    structure: Structure,
    progress: Progress,
) -> Budgeted:
    """``module`` is the legalized float graph, ``base`` it fully quantized; ``masked`` are
    operators that calibration put back in float, with the reasons. ``batches`` can be read again.

    Raises :class:`QuantizationError` where the budget cannot be met, with how near it came.
    """
    with progress.stage("float results"):
        judge = _judge(budget, base.floating, batches, unseen, structure)
    with progress.stage("statistics", batches.count) as stage:
        statistics = gather(module, batches, stage)
    correction = list(itertools.islice(batches, CORRECTION_BATCHES))
    mixtures = Mixtures(module, base.quantization, statistics, correction, masked)
    run = _Run(judge, mixtures, base, budget)
    if not run.search.reaches(frozenset()):
        with progress.stage("sensitivity", min(len(correction), BATCHES)) as stage:
            noise = run.noise(correction, stage.advance)
        with progress.stage("search", run.expected_trials) as stage:
            run.find(noise, stage.advance)
            stage.note(
                f"{counted(run.search.tried, 'trial')}, {len(run.best.floats)} kept in float"
            )
    return Budgeted(run.best, _checked(run, judge, budget), statistics)


def _checked(run: _Run, judge: Judge, budget: AccuracyBudget) -> BudgetOutcome:
    """The outcome, with how far a metric's numbers can be trusted."""
    outcome = run.outcome()
    if not isinstance(judge, MetricJudge):
        return outcome
    int8 = Snapshot.of(run.base.converted)
    best = int8 if run.best is run.base else Snapshot.of(run.best.converted)
    whole = judge.float_scores
    return replace(
        outcome,
        samples=whole.samples,
        uncertainty=run.scores[run.best.floats].uncertainty(whole),
        warning=whole.too_few_for(budget.allowed_drop),
        held_out=judge.held_out(run.base.floating, int8, best),
    )


def _judge(
    budget: AccuracyBudget,
    floating: Snapshot,
    batches: Batches,
    unseen: Batches | None,
    structure: Structure,
) -> Judge:
    if budget.metric is not None:
        return MetricJudge(floating, structure, budget)
    assert budget.sqnr is not None
    data = list(batches if unseen is None else unseen)
    if unseen is not None:
        said = f"on {len(data)} batch{'es' if len(data) != 1 else ''} of held-out data"
    elif batches.data is None:
        said = "on the example inputs alone (give held-out data for real use)"
    else:
        said = "on the calibration data (give held-out data for real use)"
    return RatioJudge(floating, data, float(budget.sqnr), said)


class _Run:
    """One search."""

    def __init__(
        self, judge: Judge, mixtures: Mixtures, base: Mixture, budget: AccuracyBudget
    ) -> None:
        self.judge, self.mixtures, self.base = judge, mixtures, base
        self.observers: dict[str, Observer] = {}
        self.best = base
        #: Of each mixture that was tried, with the observers that are kept.
        self.scores = {base.floats: judge.scores(Snapshot.of(base.converted))}
        self.int8 = self.scores[base.floats].mean
        self.search = Search(self._score, judge.target, budget.trials)
        self.search.known[frozenset()] = self.int8
        self.search.tried = 1

    @property
    def expected_trials(self) -> int:
        """For the progress alone."""
        count = len(self.base.plan.quantized).bit_length() + 12
        return max(1, min(count, self.search.trials))

    def find(self, noise: Noise | None, advance: Callable[[], None]) -> None:
        """Sets ``best``. Raises :class:`QuantizationError` where nothing reaches the target."""
        self.search.advance = advance
        if noise is not None:
            self.search.harm = noise.total
            self._choose_observers(noise)
            if self.search.reaches(frozenset()):
                return
        names = [d.node.name for d in self.base.plan.quantized]
        steps = self._by_place(names) if noise is None else noise.order(names)
        floats = self.search.fewest(steps, self._guess(noise, steps), self._alone())
        if floats is None:
            self._cannot()
        if self.best.floats != floats:
            mixture = self.mixtures.make(floats, self.observers)
            assert mixture is not None
            self.best = mixture

    def _alone(self) -> set[str]:
        """The operators that can be the only ones in int8."""
        done = self.base.plan.quantized
        return {d.node.name for d in done if isinstance(d.rule, (Weighted, Recurrent))}

    def _score(self, floats: Floats) -> float | None:
        mixture = self.mixtures.make(floats, self.observers)
        if mixture is None:
            return None
        scores = self.judge.scores(Snapshot.of(mixture.converted))
        self.scores[floats] = scores
        if scores.mean >= self.judge.target:
            self.best = mixture
        return scores.mean

    def noise(self, batches: Sequence[Sequence[Any]], advance: Callable[[], None]) -> Noise | None:
        """``None`` where the model has no derivative."""
        ways = self._ways()
        try:
            return find_noise(
                self.base.floating, Snapshot.of(self.base.converted), self.base.plan, batches,
                ways, advance,
            )  # fmt: skip
        except (RuntimeError, NotImplementedError):
            return None

    def _ways(self) -> dict[str, list[tuple[str, float, int]]]:
        """The parameters that each observer would choose for each value of a static layer."""
        static = [d for d in self.base.plan.quantized if not d.is_dynamic]
        names = {value.name for d in static for value in (*d.inputs, d.result)}
        result: dict[str, list[tuple[str, float, int]]] = {}
        for name in sorted(names & self.mixtures.statistics.values.keys()):
            seen = self.mixtures.statistics.values[name]
            result[name] = [
                (kind, *_parameters(seen, kind))
                for kind in ACTIVATION_OBSERVERS
                if kind != self.base.quantization.observer
            ]
        return result

    def _choose_observers(self, noise: Noise) -> None:
        """Keeps the choice if it makes the whole better."""
        self.observers = dict(noise.better_ways())  # type: ignore[arg-type]
        if not self.observers:
            return
        before = self.scores[frozenset()]
        score = self._score(frozenset())
        self.search.tried += 1
        if score is None or score < self.int8:
            self.observers, self.scores[frozenset()] = {}, before
        else:
            self.search.known[frozenset()] = score

    def _guess(self, noise: Noise | None, steps: Sequence[Floats]) -> int:
        """How many steps may be needed."""
        if noise is None or self.judge.unit != "dB":
            return max(1, len(steps) // 16)
        whole = noise.total(frozenset())
        now = 10.0 ** (-self.search.known[frozenset()] / 10.0)
        allowed = 10.0 ** (-self.judge.target / 10.0) / max(now, 1e-30) * whole
        floats: set[str] = set()
        for count, step in enumerate(steps):
            if noise.total(floats) <= allowed:
                return count
            floats |= step
        return len(steps) - 1

    def _by_place(self, names: Sequence[str]) -> list[Floats]:
        """Without a derivative: the last operators first, whose errors nothing hides."""
        return [frozenset({name}) for name in reversed(names)]

    def _cannot(self) -> NoReturn:
        search, judge = self.search, self.judge
        shown = f"{search.nearest:.1f} dB" if judge.unit == "dB" else f"{search.nearest:.6g}"
        asked = f"{judge.target:.1f} dB" if judge.unit == "dB" else f"{judge.target:.6g}"
        raise QuantizationError(
            f"the accuracy budget of {asked} cannot be met: the nearest of {search.tried} mixtures "
            f"has {shown}, with {search.nearest_size} of {len(self.base.plan.quantized)} operators "
            "kept in float; ask for less, or compile in float"
        )

    def outcome(self) -> BudgetOutcome:
        """What ``best`` is."""
        found, chosen = self.best, self.best.floats
        before = {d.node.name for d in self.base.plan.quantized}
        kept = []
        for decision in found.plan.decisions:
            if decision.quantized or decision.node.name not in before:
                continue
            if decision.node.name in chosen:
                decision.reason = KEPT
            kept.append(
                KeptLayer(
                    decision.node.name, decision.operator, decision.module,
                    decision.node.name in chosen,
                )
            )  # fmt: skip
        reached = self.search.known[found.floats]
        used = found is not self.base
        return BudgetOutcome(
            unit=self.judge.unit, asked=self.judge.target, floating=self.judge.floating,
            int8=self.int8, reached=reached, kept=tuple(kept),
            observers=dict(self.observers) if used else {},
            trials=self.search.tried, data=self.judge.data,
        )  # fmt: skip


def priced(found: Budgeted, whole: QuantizationReport) -> BudgetOutcome:
    """The outcome with what it costs beside ``whole``, the report of the fully quantized graph."""
    sizes = Measured({n: Sums(numel=c) for n, c in found.statistics.numels.items()}, (), 0)
    layers = Costs(whole.scheme, whole.layers, whole.layers[0].comparison, sizes, None).all().layers
    heads = {layer.node: layer.head for layer in whole.layers}
    kept = {layer.node for layer in found.outcome.kept}
    back = [layer for layer in layers if layer.quantized and heads[layer.node] in kept]
    return replace(
        found.outcome,
        extra_bytes=sum(layer.float_bytes - layer.bytes for layer in back),
        extra_seconds=sum(layer.float_seconds - layer.seconds for layer in back),
        times=ESTIMATE,
    )


def _parameters(seen: HistogramActivationObserver, kind: Observer) -> tuple[float, int]:
    """(scale, zero point) that an observer of that kind chooses for what ``seen`` has seen."""
    observer = activation_observer(ACTIVATION_OBSERVERS[kind])
    observer.absorb(seen)
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)

"""What a comparison found, as plain data: :class:`CompareReport`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from penstock.notebook import Table, facts, render


@dataclass(frozen=True)
class Layer:
    """An operator of the model in both sides. ``sqnr_db`` is of ``b`` against ``a`` over all
    samples; ``loss_db`` is by how much that is less than of the worst value it reads (None where
    that is not known); ``largest`` is the largest difference, ``extent`` the largest value of
    ``a``. ``note`` says what is special."""

    module: str
    operator: str
    source: str
    kinds: tuple[str, str]
    dtypes: tuple[str, str]
    shape: tuple[int, ...]
    sqnr_db: float
    loss_db: float | None
    largest: float
    extent: float
    note: str = ""

    @property
    def name(self) -> str:
        """``features.1 add``; what is not known is left out."""
        operator = self.operator.removeprefix("aten.").rpartition(".")[0] or self.operator
        return " ".join(part for part in (self.module, operator or self.kinds[0]) if part)


@dataclass(frozen=True)
class Output:
    """An output of both sides, over all samples."""

    shape: tuple[int, ...]
    sqnr_db: float
    largest: float
    extent: float


@dataclass(frozen=True)
class CompareReport:
    """``a`` and ``b`` agree where no output is below ``threshold_db``. ``first`` is the position
    of the first layer that is, after which they part. ``unmatched`` are the values of each side
    that have no counterpart, by name. ``left_out`` are pairs whose values are not the same thing:
    they differ, and what follows from them agrees."""

    a: str
    b: str
    samples: int
    inputs: str
    threshold_db: float
    outputs: tuple[Output, ...]
    layers: tuple[Layer, ...]
    first: int | None
    unmatched: tuple[tuple[str, ...], tuple[str, ...]]
    left_out: tuple[Layer, ...] = ()

    @property
    def agree(self) -> bool:
        return all(output.sqnr_db >= self.threshold_db for output in self.outputs)

    @property
    def equal(self) -> bool:
        """Whether all layers are equal to the bit."""
        return all(layer.sqnr_db == math.inf for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        layers, left_out = (
            [dataclasses.asdict(layer) | {"name": layer.name} for layer in found]
            for found in (self.layers, self.left_out)
        )
        plain = dataclasses.asdict(self)
        return plain | {"agree": self.agree, "layers": layers, "left_out": left_out}

    def _repr_html_(self) -> str:
        """The outputs, and the layers that lose most first."""
        verdict = "agree" if self.agree else "do not agree"
        first = None if self.first is None else self.layers[self.first].name
        summary = facts(
            f"{self.a} and {self.b} {verdict}",
            (
                ("judged on", self.inputs),
                *(
                    (
                        f"output {i}",
                        f"{list(output.shape)}, {_decibel(output.sqnr_db)},"
                        f" largest difference {output.largest:.3g} of {output.extent:.3g}",
                    )
                    for i, output in enumerate(self.outputs)
                ),
                (f"below {self.threshold_db:.0f} dB first", first),
                ("left out, not the same values", str(len(self.left_out) or "")),
            ),
        )
        layers = sorted(self.layers, key=lambda layer: -(layer.loss_db or -math.inf))
        rows = [
            (
                layer.name, " ".join(dict.fromkeys(layer.dtypes)), _decibel(layer.sqnr_db),
                "" if layer.loss_db is None else f"{layer.loss_db:.1f} dB", f"{layer.largest:.2g}",
            )
            for layer in layers
        ]  # fmt: skip
        table = Table("", ("layer", "types", "SQNR", "loses", "largest difference"), rows)
        return render(summary, *([table] if rows else []))


def _decibel(ratio: float) -> str:
    return "equal" if ratio == math.inf else f"{ratio:.1f} dB"

"""What XNNPACK's own nodes do at the ends of float32, where eager PyTorch does something else.

One node each stands behind these, and composing it anew from others would cost models that never
meet such values. The operator page shows this table, and ``tests/sweeps/test_specials.py`` allows
nothing beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.compiler.delegate.lowering.extremes import LARGEST


@dataclass(frozen=True)
class Limit:
    """For magnitudes from ``low`` to ``high`` in an input (``not_a_number``: for that), ``effect``
    is what comes out of the operator entries ``entries`` (none named: of all)."""

    values: str
    effect: str
    entries: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    not_a_number: bool = False

    def covers(self, entry: str, value: float) -> bool:
        """Whether ``entry`` may differ from eager for an input that holds ``value``."""
        if self.entries and entry not in self.entries:
            return False
        return self.not_a_number if math.isnan(value) else self.low <= abs(value) <= self.high


COMPARISONS = (
    "gt", "lt", "ge", "le", "eq", "ne", "and", "or", "xor", "not", "mask to numbers",
    "isinf", "isposinf", "isneginf",
)  # fmt: skip

LIMITS = (
    Limit(
        "numbers below 4.7e-38",
        "count as zero: XNNPACK computes with denormal numbers flushed to it",
        low=math.ulp(0.0), high=4.7e-38,
    ),
    Limit(
        "not-a-number",
        "is passed over, or gives -inf, where the largest or smallest is looked for by pooling or "
        "by comparing; an average pool gives -inf, and with it the sum of a long row",
        ("maximum", "minimum", "clamp by tensors", "max_pool", "max_pool with indices",
         "adaptive_max_pool", "max_pool3d", "avg_pool", "avg_pool3d", "adaptive_avg_pool", "amax",
         "amin", "max.dim", "min.dim", "aminmax", "cummax", "cummin", "norm", "sum"),
        not_a_number=True,
    ),
    Limit(
        "not-a-number",
        "compared with anything is not a number: so is what is chosen by it",
        (*COMPARISONS, "sign", "where", "copysign", "heaviside", "places_of_largest"),
        not_a_number=True,
    ),
    Limit(
        "minus zero",
        "is zero where it is picked from a row",
        ("places_of_largest",),
    ),
    Limit(
        "not-a-number",
        "stays where it is not chosen",
        ("where", "triangle", "heaviside"),
        not_a_number=True,
    ),
    Limit(
        "not-a-number and infinity",
        "in a query or key give rows of not-a-number, also where a mask is added to the score; "
        "eager's fused kernel gives zeros, or bounds the score",
        ("scaled_dot_product_attention", "attention_of_parts"),
        low=math.inf, high=math.inf, not_a_number=True,
    ),
    Limit(
        "not-a-number and infinity",
        "make neighbours not a number: the kernels of depthwise convolutions, which batch norms on "
        "their own are too, multiply what is beside small filters by zero",
        ("batch_norm",),
        low=math.inf, high=math.inf, not_a_number=True,
    ),
    Limit(
        "infinity",
        "is not a number where it is blended with its neighbours: XNNPACK's resizing node takes "
        "their difference",
        ("upsample_bilinear", "upsample_linear"),
        low=math.inf, high=math.inf,
    ),
    Limit(
        "not-a-number, infinity, numbers next to it",
        "do not reach resized values to which they contribute nothing, eager multiplies them by "
        "zero; at borders, where eager adds one value several times, by its joint weight",
        ("upsample", "upsample_bilinear", "upsample_linear"),
        low=3.3e38, high=math.inf, not_a_number=True,
    ),
    Limit(
        "infinity",
        "has an infinite mean beside its variance; eager's is not a number in some places",
        ("var_mean", "std_mean"),
        low=math.inf, high=math.inf,
    ),
    Limit(
        "magnitudes from 6e26 to 3.4e38",
        "not a number after a sigmoid; infinity is right, and so is what `masked_fill` or `where` "
        "put there",
        ("sigmoid", "silu", "glu", "lstm", "lstm_cell", "gru", "gru_cell"),
        low=5.9e26, high=LARGEST,
    ),
    Limit(
        "angles beyond 2.5e6",
        "the fewer digits the larger they are, not a number in the end",
        ("sin", "cos", "tan", "sinc"),
        low=2.5e6, high=LARGEST,
    ),
    Limit(
        "numbers beyond 2.5e38",
        "their logarithm is infinity, and so are powers by it",
        ("log", "log2", "log10", "log1p", "pow", "xlogy"),
        low=2.5e38, high=LARGEST,
    ),
    Limit(
        "exponents from 88.38 to 88.72 (to the base e)",
        "the power is infinity, up to 0.34 too early",
        ("exp", "expm1", "exp2", "pow", "pow of a number"),
        low=88.38, high=168.0,
    ),
    Limit(
        "minus infinity",
        "to a fractional power is not a number, as for other negative numbers; eager's is infinity",
        ("pow",),
        low=math.inf, high=math.inf,
    ),
    Limit(
        "magnitudes beyond 2e37",
        "their reciprocals are denormal, hence zero",
        ("pow",),
        low=2e37, high=LARGEST,
    ),
    Limit(
        "not-a-number and infinity",
        "spread to other places of the window: these are products with matrices",
        ("conv_transpose3d",),
        low=math.inf, high=math.inf, not_a_number=True,
    ),
    Limit(
        "magnitudes beyond 9e18",
        "their squares, and products of them, overflow in float32 where eager has other orders or "
        "float64 inside",
        ("var", "std", "std_mean", "layer_norm", "group_norm", "prod", "cumprod", "cross"),
        low=9e18, high=LARGEST,
    ),
)  # fmt: skip

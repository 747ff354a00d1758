"""The zoo's list: names, descriptions and where each model is made. Data only; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

STATIC_PER_TENSOR = "static_per_tensor"
STATIC_PER_CHANNEL = "static_per_channel"
DYNAMIC_PER_CHANNEL = "dynamic_per_channel"


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    ``library`` is where the model comes from ("" when it is written here), ``parameters`` counts
    its parameters, ``inputs`` describes its example inputs for people, ``quantization`` the scheme
    that suits it, and ``factory`` names the function that makes it, as ``module:function`` below
    ``penstock.zoo``.
    """

    name: str
    summary: str
    library: str
    parameters: int
    inputs: str
    quantization: str
    factory: str


_IMAGE = "float32 1x3x224x224"

# fmt: off
_ENTRIES = (
    Entry("linear", "one linear layer, 3 to 3", "", 12, "float32 3x3", STATIC_PER_CHANNEL,
          "toys:linear"),
    Entry("add", "sum of two inputs", "", 0, "2 of float32 1", STATIC_PER_TENSOR, "toys:add"),
    Entry("add_mul", "matrix product and sum", "", 0, "3 of float32 2x2", STATIC_PER_TENSOR,
          "toys:add_mul"),
    Entry("mv2", "MobileNetV2", "torchvision", 3_504_872, _IMAGE, STATIC_PER_CHANNEL,
          "vision:mv2"),
)
# fmt: on

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}

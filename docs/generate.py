"""``make docs``: writes ``docs/operators.md`` from the operator table and the kernel registry.

With ``--check`` it writes nothing, and ends with code 1 if the page is not what it would write.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "operators.md"

INTRODUCTION = """\
# Operators

Made by `make docs` from the code; a test keeps it up to date.

## To XNNPACK

{entries} entries answer to {overloads} ATen overloads; overloads that work in place, such as
`relu_`, are turned into these before. The names in the first column are those that
`Quantization(skip=...)` and the reports use.

All tensors of a delegated operator are float32 (or int8 between a quantize and a dequantize), have
at most 6 dimensions and are not empty; what an entry asks beyond that stands under *conditions*.
Some refusals show only when a node is lowered, a reshape that merges two dynamic sizes say.
Either way the reason is in `lowered.delegation.undelegated`. Operators without an entry are taken
apart where XNNPACK has all the parts.
With dynamic sizes an operator is delegated, composed of kernels, or refused in words; it is never
compiled for the example's size. Of the 468 programs behind this table that can be exported with all
dimensions dynamic, 304 are one delegate, 50 are in part, 103 run in kernels and 11 are refused
(volumes pooled with ceil_mode, antialiased cubic resizing, attention to parts of a cache whose
sizes nothing ties to each other, places of the largest of a row without a fixed length); of 2260
with one dynamic dimension 1969, 90, 172 and 29. Answers are those of eager PyTorch at all sizes
that are tried (`tests/sweeps/test_dynamic_sizes.py`), here and on the stock runtime.
[Operators of your own](../CONTRIBUTING.md#an-operator-for-xnnpack) can be registered without a
change to Penstock.

*In int8* says how an entry takes part in static quantization:

- *weights*: int8 activations and weights, int32 bias. *Also dynamic*: in the dynamic scheme too,
  with activations quantized at run time;
- *own*: inputs and output have parameters of their own;
- *shared*: the output has its input's parameters, because values only move or are selected;
- *own output*: the output has parameters of its own, in which the inputs are read, because it holds
  values that theirs may not;
- *fixed*: the output's parameters are known beforehand, and used where calibration sees half of
  that range or more;
- *dynamic alone*: int8 weights in the dynamic schemes, in float in the static ones;
- float: not at all.

Complex tensors have no entries: each becomes a pair of real ones, so that their arithmetic is that
of the entries below. Only complex inputs and outputs of the program are complex tensors, which
kernels take apart and put together. Fourier transforms of up to 4,096 values become products with
small matrices (two for more than 64 values, each of at most 128 rows), in float also in quantized
models; other lengths, dynamic ones and float64 go to the kernel. So a spectrogram (`torch.stft`,
`istft`, `torchaudio`'s transforms) and the network behind it are one delegate; where the signal's
length is dynamic, it is cut into frames outside. Not supported: complex numbers of 16 bits, complex
buffers that a model writes to, and decompositions of complex matrices.

A relu, relu6, hardtanh or clamp right after a convolution, a product or arithmetic is taken into
that operator as its output range, in float and in int8.
"""

EXTREMES = """\
### At the ends of float32

Infinities, zeros, not-a-number and the largest numbers give what eager PyTorch gives; a row of
attention that masks everything is zeros. What XNNPACK's own nodes do otherwise, and what no other
node does for them at the same speed:

| values | what becomes of them | entries |
| --- | --- | --- |"""

VARYING = """
Along dimensions that vary, values are moved by pooling and sizes are read off tensors: there
not-a-number may become -inf or reach other results, and an infinity in a running sum its
neighbours.
"""

KERNELS = """\
## Kernels

What is outside a delegate runs on NumPy: {own} operators. The stock runtime registers {stock}
in its portable, optimized and quantized libraries; {both} of them are here. Overloads that the
stock runtime lacks are in brackets. *Family* is the module in `penstock/runtime/kernels`.

| operator | overloads | family |
| --- | --- | --- |"""


def page() -> str:
    """The whole page."""
    from penstock.compiler.delegate.operators import registry
    from penstock.formats.kernel_names import stock_kernels
    from penstock.runtime.instructions import CORE_OPERATORS
    from penstock.runtime.kernels import table

    entries = registry.entries()
    lines = [
        INTRODUCTION.format(
            entries=len(entries), overloads=sum(len(entry.targets) for entry in entries)
        )
    ]
    for family, members in groupby(sorted(entries, key=_family), _family):
        lines += _family_table(family, list(members))
    lines += [EXTREMES, *_limits(), VARYING]
    stock, kernels = stock_kernels(), {_full_name(row): row.family for row in table.rows()}
    kernels.update(dict.fromkeys(CORE_OPERATORS, "the method itself"))
    lines.append(KERNELS.format(own=len(kernels), stock=len(stock), both=len(stock & set(kernels))))
    return "\n".join([*lines, *_kernel_rows(kernels, stock), ""])


def _limits() -> Iterable[str]:
    from penstock.compiler.delegate.limits import LIMITS

    for limit in LIMITS:
        yield f"| {limit.values} | {limit.effect} | {', '.join(limit.entries) or 'all'} |"


def _family(entry: Any) -> str:
    return str(entry.lower.__module__).rpartition(".")[2].replace("_", " ")


def _family_table(family: str, entries: Sequence[Any]) -> Iterable[str]:
    """What all entries of a family ask for is said above its table."""
    from penstock.compiler.delegate.operators import constraints as everywhere

    shared = set(everywhere.FLOATS)
    common = [c for c in entries[0].constraints if c not in shared]
    common = [c for c in common if len(entries) > 1 and all(c in e.constraints for e in entries)]
    shared.update(common)
    yield f"### {family}\n"
    if for_all := _cell(_conditions(common)):
        yield f"All: {for_all}.\n"
    yield "| entry | ATen overloads | in int8 | conditions and remarks |"
    yield "| --- | --- | --- | --- |"
    for entry in entries:
        overloads = ", ".join(f"`{str(target).removeprefix('aten.')}`" for target in entry.targets)
        conditions = _conditions([c for c in entry.constraints if c not in shared])
        remarks = _cell([*conditions, entry.notes])
        yield f"| {entry.name} | {overloads} | {_quantized(entry)} | {remarks} |"
    yield ""


def _conditions(constraints: Sequence[Any]) -> Iterable[str]:
    """What constraints ask for, in words. One without a docstring leaves that to the notes."""
    from penstock.compiler.delegate.operators import constraints as common

    constants = []
    for check in constraints:
        maker = check.__qualname__.split(".")[0]
        given = inspect.getclosurevars(check).nonlocals
        if maker == common.constant.__name__:
            constants.append(str(given["name"]).replace("_", " "))
        elif maker == common.argument_is.__name__:
            yield f"{given['name']} = {' or '.join(sorted({f'{v:g}' for v in given['allowed']}))}"
        elif "names" in given:
            yield f"{maker.strip('_').replace('_', ' ')} {' and '.join(given['names'])}"
        elif check.__doc__:
            text = inspect.cleandoc(check.__doc__).split("\n\n")[0].rstrip(".")
            yield text[0].lower() + text[1:]
    if constants:
        yield f"constant {', '.join(constants)}"


def _quantized(entry: Any) -> str:
    kind = _quantization_kind(entry.quantization)
    if entry.special_rule is None:
        return kind
    text = inspect.cleandoc(entry.special_rule.__doc__).rstrip(".")
    return f"{kind}; {text[0].lower()}{text[1:]}"


def _quantization_kind(rule: Any) -> str:
    if rule is None:
        return "float"
    kind = type(rule).__name__
    if kind == "Weighted":
        if callable(rule.dynamic):
            return "weights, some also dynamic"
        return "weights, also dynamic" if rule.dynamic else "weights"
    if kind == "Recurrent":
        return "dynamic alone"
    names = {"Independent": "own", "Shared": "shared", "OutputRange": "own output"}
    return {**names, "FixedOutput": "fixed"}[kind]


def _cell(texts: Iterable[str]) -> str:
    return "; ".join(" ".join(text.split()).replace("|", "\\|") for text in texts if text)


def _full_name(row: Any) -> str:
    return f"{row.name}.{row.overload}" if row.overload else str(row.name)


def _kernel_rows(kernels: Mapping[str, str], stock: frozenset[str]) -> Iterable[str]:
    for name, overloads in groupby(sorted(kernels), lambda full_name: full_name.partition(".")[0]):
        members = list(overloads)
        shown = ", ".join(_overload(full_name, full_name in stock) for full_name in members)
        families = ", ".join(dict.fromkeys(kernels[m].replace("_", " ") for m in members))
        yield f"| `{name}` | {shown} | {families} |"


def _overload(full_name: str, is_stock: bool) -> str:
    text = f"`{full_name.partition('.')[2] or '-'}`"
    return text if is_stock else f"({text})"


def main() -> None:
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.exists() and PAGE.read_text() == text else 1)
    PAGE.write_text(text)
    print(f"written: docs/{PAGE.name}")


if __name__ == "__main__":
    main()

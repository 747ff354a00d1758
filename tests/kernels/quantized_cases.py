"""Cases for the quantized operators. Run as a script, it computes them with the stock package's
own kernels (its library of quantized operators for PyTorch) and writes the results to a file.

Kept apart from the harness, because the stock package lives in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

#: ScalarType numbers of the format.
BYTE, CHAR, SHORT, INT, HALF, FLOAT, DOUBLE, UINT16 = 0, 1, 2, 3, 5, 6, 7, 27
KINDS = {
    BYTE: np.dtype("uint8"),
    CHAR: np.dtype("int8"),
    SHORT: np.dtype("int16"),
    INT: np.dtype("int32"),
    HALF: np.dtype("float16"),
    FLOAT: np.dtype("float32"),
    DOUBLE: np.dtype("float64"),
    UINT16: np.dtype("uint16"),
}
RANGES = {
    BYTE: (0, 255, 131),
    CHAR: (-128, 127, -3),
    SHORT: (-32768, 32767, 12),
    INT: (-(1 << 31), (1 << 31) - 1, 7),
    UINT16: (0, 65535, 777),
}
Case = tuple[str, list[Any], list[tuple[tuple[int, ...], np.dtype]]]
SEED = 20


def floats(rng: np.random.Generator, shape: tuple[int, ...], kind: int = FLOAT) -> np.ndarray:
    """Floats of which many lie halfway between two steps of a scale of 1/32, and some far out."""
    steps = rng.integers(-600, 600, shape) / 64
    x = np.where(rng.random(shape) < 0.5, steps, rng.normal(0, 3, shape))
    return np.where(rng.random(shape) < 0.05, x * 100, x).astype(KINDS[kind])


def cases() -> Iterator[Case]:
    """(operator, arguments without out, shape and type of the out tensors)."""
    rng = np.random.default_rng(SEED)
    space = "quantized_decomposed::"
    for dtype, (low, high, point) in RANGES.items():
        kind = KINDS[dtype]
        for source in (FLOAT, DOUBLE, HALF):
            x = floats(rng, (3, 4, 50), source)
            for scale in (1 / 32, 0.0371, 3.0):
                tail = [low, high, dtype]
                out = [(x.shape, kind)]
                yield f"{space}quantize_per_tensor.out", [x, scale, point, *tail], out
            parameters = [np.array([0.05]), np.array([point])]
            yield f"{space}quantize_per_tensor.Tensor_out", [x, *parameters, *tail], out
            for axis in (0, 1, -1):
                n = x.shape[axis]
                scales = rng.uniform(0.01, 0.1, n)
                points = rng.integers(-5, 5, n) + point
                args = [x, scales, points, axis, *tail]
                yield f"{space}quantize_per_channel.out", args, out
            scales = rng.uniform(0.01, 0.1, (3, 4, 1))
            points = rng.integers(-5, 5, (3, 4, 1)) + point
            yield f"{space}quantize_per_token.out", [x, scales, points, *tail], out

        q = rng.integers(max(low, -40000), min(high, 70000) + 1, (3, 4, 50)).astype(kind)
        for target in (FLOAT, DOUBLE, HALF):
            out = [(q.shape, KINDS[target])]
            # To other types than float32 the stock library takes out_dtype.
            tail = [low, high, dtype, target]
            args = [q, 0.0371, point, *tail]
            yield f"{space}dequantize_per_tensor.out", args, out
            parameters = [np.array([0.05]), np.array([point])]
            yield f"{space}dequantize_per_tensor.Tensor_out", [q, *parameters, *tail], out
            for axis in (0, 1, -1):
                n = q.shape[axis]
                scales = rng.uniform(0.01, 0.1, n)
                for points in (None, rng.integers(low, min(high, 99), n)):
                    for factors in (scales, scales.astype(np.float32)):
                        args = [q, factors, points, axis, *tail]
                        yield f"{space}dequantize_per_channel.out", args, out
            scales = rng.uniform(0.01, 0.1, (3, 4, 1))
            points = rng.integers(low, min(high, 99), (3, 4, 1))
            yield f"{space}dequantize_per_token.out", [q, scales, points, *tail], out

    for x in (
        floats(rng, (7, 9)),
        np.abs(floats(rng, (5,))),
        -np.abs(floats(rng, (5,))),
        np.zeros((2, 2), np.float32),
        np.array([1e-7, -2e-7, 0], np.float32),
        np.array([1e-6], np.float32),
        np.array([-1e-6], np.float32),
    ):
        for dtype in (CHAR, BYTE):
            low, high, _ = RANGES[dtype]
            out = [((1,), KINDS[DOUBLE]), ((1,), np.dtype("int64"))]
            yield f"{space}choose_qparams.Tensor_out", [x, low, high, 1e-5, dtype], out
        shape = (*x.shape[:-1], 1)
        out = [(shape, KINDS[DOUBLE]), (shape, np.dtype("int64"))]
        yield f"{space}choose_qparams_per_token_asymmetric.out", [x, CHAR], out

    for kind in (np.uint8, np.int8):
        a, b = (rng.integers(0, 128, (4, 300)).astype(kind) for _ in range(2))
        for scale in (0.02, 0.0371, 1.0):
            first, second = [a, 0.03, 5, 0, 255], [b, 0.011, 120, 0, 255]
            args = [*first, *second, scale, 3, 0, 127]
            yield f"{space}add.out", args, [(a.shape, np.dtype(kind))]

    indices = rng.integers(0, 6, (2, 3))
    for bits, name in ((8, "byte"), (4, "4bit"), (2, "2bit")):
        kinds = (np.uint8, np.int8) if bits == 8 else (np.uint8,)
        for kind in kinds:
            table = rng.integers(-128 if kind is np.int8 else 0, 127, (6, 8)).astype(kind)
            out = [((2, 3, 64 // bits), KINDS[FLOAT])]
            low = 0 if kind is np.uint8 and bits == 8 else -(1 << (bits - 1))
            high = low + (1 << bits) - 1
            for shape in ((6,), (6, 2), (6, 4)):
                scales = rng.uniform(0.01, 0.1, shape).astype(np.float32)
                points = rng.integers(0, 9, shape).astype(np.float32)
                for zero_points in (None, points):
                    args = [table, scales, zero_points, low, high, indices]
                    yield f"{space}embedding_{name}.out", args, out
                    yield f"{space}embedding_{name}.dtype_out", [*args, FLOAT], out

    for kind in (FLOAT, HALF):
        # Small, since the stock kernels add up halves in halves.
        x = rng.normal(0, 1, (3, 12)).astype(KINDS[kind])
        scales = rng.uniform(0.01, 0.1, 12).astype(KINDS[kind])
        weight = rng.integers(-128, 128, (12, 5)).astype(np.int8)
        out = [((3, 5), KINDS[kind])]
        yield f"{space}mixed_mm.out", [x, weight, scales, None], out
        turned = np.ascontiguousarray(weight.T)
        for shape in ((5,), (5, 1), (5, 3), (5, 4)):
            scales = rng.uniform(0.01, 0.1, shape).astype(KINDS[kind])
            for dtype in (None, FLOAT):
                out = [((3, 5), KINDS[FLOAT if dtype else kind])]
                yield f"{space}mixed_linear.out", [x, turned, scales, None, dtype], out


def main(path: str) -> None:
    # These register the operators.
    import executorch.exir.passes._quant_patterns_and_replacements
    import executorch.kernels.quantized  # noqa: F401
    import torch

    types = {
        BYTE: torch.uint8,
        CHAR: torch.int8,
        SHORT: torch.int16,
        INT: torch.int32,
        HALF: torch.float16,
        FLOAT: torch.float32,
        DOUBLE: torch.float64,
        UINT16: torch.uint16,
    }
    results: dict[str, np.ndarray] = {}
    for number, (name, args, outs) in enumerate(cases()):
        base, _, overload = name.partition("::")[2].partition(".")
        # The embeddings' out variants are in the runtime alone; the functional ones are here too.
        functional = {"out": "default", "dtype_out": "dtype"} if "embedding" in base else {}
        op = getattr(
            getattr(torch.ops.quantized_decomposed, base), functional.get(overload, overload)
        )
        given: list[Any] = []
        keywords: dict[str, Any] = {}
        rest = [a for a in op._schema.arguments if a.alias_info is None]
        for argument, value in zip(rest, args, strict=True):
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value)
            elif "dtype" in argument.name and value is not None:
                value = types[value]
            if argument.kwarg_only:
                keywords[argument.name] = value
            else:
                given.append(value)
        buffers = [torch.from_numpy(np.zeros(shape, kind)) for shape, kind in outs]
        names = [a.name for a in op._schema.arguments if a.alias_info is not None]
        try:
            if functional:
                buffers = [op(*given, **keywords)]
            else:
                op(*given, **keywords, **dict(zip(names, buffers, strict=True)))
        except RuntimeError as error:
            print(number, name, error, file=sys.stderr)
            continue
        for i, buffer in enumerate(buffers):
            results[f"{number}-{i}"] = buffer.numpy()
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])

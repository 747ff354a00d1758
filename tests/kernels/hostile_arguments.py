"""Calls every kernel with damaged arguments, as a damaged or hostile file would.

Whatever a kernel makes of them, it must return or raise an ``Exception`` soon and within bounded
memory. Run as a script, in a process of its own whose memory is limited; prints what went wrong.
"""

from __future__ import annotations

import inspect
import resource
import signal
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import kernel_cases  # noqa: F401  (registers the cases)
import numpy as np
import quantized_cases
from kernel_harness import BFLOAT16, GENERATORS, Case, call, describe, operator

from penstock.runtime.kernels import registry

HEADROOM = 1 << 30
SECONDS = 5
NUMBERS = (-1, 0, 1, 3, -7, 1000, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
SCALARS = (*NUMBERS, float("nan"), float("inf"), -1e300, 0.0, True, None, "floor", "x")


def damaged(rng: np.random.Generator, value: Any) -> Any:
    """Something like ``value``, but not quite."""
    if isinstance(value, np.ndarray):
        way = rng.integers(7)
        if way == 0:
            return value.astype(rng.choice([np.float32, np.int64, np.uint8, np.bool_, np.float64]))
        if way == 1:
            return value[..., None]
        if way == 2:
            return value.reshape(-1)
        if way == 3:
            return np.zeros(tuple(rng.integers(0, 4, rng.integers(0, 5))), value.dtype)
        if way == 4 and value.dtype.kind in "iu":
            limits = np.iinfo(value.dtype)
            return rng.choice([limits.min, limits.max, -1 & limits.max, 99], value.shape).astype(
                value.dtype
            )
        if way == 5:
            return value.astype(BFLOAT16) if value.dtype.kind != "c" else value.real
        return None
    if isinstance(value, list) and value:
        value = list(value)
        way = rng.integers(4)
        if way == 0:
            del value[rng.integers(len(value))]
        elif way == 1:
            value.append(value[0])
        elif way == 2:
            value[rng.integers(len(value))] = damaged(rng, value[0])
        else:
            return []
        return value
    if isinstance(value, list):
        return [int(rng.choice(NUMBERS[:8]))]
    choices = NUMBERS if isinstance(value, int) else SCALARS
    return choices[rng.integers(len(choices))]


class TooSlow(BaseException):
    pass


def alarm(*_: object) -> None:
    raise TooSlow


@dataclass
class Target:
    """A kernel, good arguments for it, and how many out tensors it takes (in a list)."""

    pool: list[Sequence[Any]]
    outs: int
    listed: bool = False


def targets() -> Iterator[tuple[str, Target]]:
    """Every kernel of which there are cases."""
    for name, generator in GENERATORS.items():
        arguments = [a for a in operator(name)._schema.arguments if a.alias_info and a.kwarg_only]
        listed = bool(arguments) and str(arguments[-1].type) == "List[Tensor]"
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        yield name, Target([case.args for case in generator(rng)], len(arguments), listed)
    quantized: dict[str, Target] = {}
    for name, args, outs in quantized_cases.cases():
        quantized.setdefault(name, Target([], len(outs))).pool.append(args)
    yield from quantized.items()
    for name in registry.names():
        if name.startswith("executorch_prim::"):
            found = registry.find(name)
            assert found is not None
            count = len(inspect.signature(found.function).parameters)
            yield name, Target([[2] * count, [2.5] * count, [True] * count], 0)


def attack(name: str, target: Target, rng: np.random.Generator, tries: int) -> list[str]:
    """What went wrong with one kernel."""
    wrong = []
    for _ in range(tries):
        args = list(target.pool[rng.integers(len(target.pool))])
        for _ in range(rng.integers(1, 3)):
            at = rng.integers(len(args))
            args[at] = damaged(rng, args[at])
        shape = tuple(rng.integers(0, 5, rng.integers(0, 5)))
        buffers = [np.zeros(shape, rng.choice([np.float32, np.int64])) for _ in range(target.outs)]
        what = f"{name}{describe(Case(args))}"
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(name, args, buffers, target.listed)
        except TooSlow:
            wrong.append(f"slow: {what}")
        except MemoryError:
            wrong.append(f"memory: {what}")
        except Exception:  # what a kernel is allowed to do
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return wrong


def main(tries: int, seed: int) -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, used + HEADROOM))
    signal.signal(signal.SIGALRM, alarm)
    for name, target in targets():
        print(f"# {name}", flush=True)
        for line in attack(name, target, np.random.default_rng(seed), tries):
            print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Calls every kernel with damaged arguments, as a damaged or hostile file would.

Whatever a kernel makes of them, it must return or raise an ``Exception`` soon and within bounded
memory. Run as a script, in a process of its own whose memory is limited; prints what went wrong.
"""

from __future__ import annotations

import resource
import signal
import sys
import zlib
from typing import Any

import numpy as np
import test_against_eager  # noqa: F401  (registers the cases)
from harness import BFLOAT16, GENERATORS, call, describe, operator

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


def attack(name: str, rng: np.random.Generator, cases: int, tries: int) -> list[str]:
    """What went wrong with one kernel."""
    schema = operator(name)._schema
    outs = [a for a in schema.arguments if a.kwarg_only and a.alias_info is not None]
    listed = bool(outs) and str(outs[-1].type) == "List[Tensor]"
    pool = list(GENERATORS[name](rng))
    wrong = []
    for number in rng.integers(0, len(pool), cases):
        case = pool[number]
        for _ in range(tries):
            args = list(case.args)
            for _ in range(rng.integers(1, 3)):
                at = rng.integers(len(args))
                args[at] = damaged(rng, args[at])
            shape = tuple(rng.integers(0, 5, rng.integers(0, 5)))
            buffers = [np.zeros(shape, rng.choice([np.float32, np.int64])) for _ in outs]
            what = f"{name}{describe(type(case)(args))}"
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                call(name, args, buffers, listed)
            except TooSlow:
                wrong.append(f"slow: {what}")
            except MemoryError:
                wrong.append(f"memory: {what}")
            except Exception:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    return wrong


def main(cases: int, tries: int) -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, used + HEADROOM))
    signal.signal(signal.SIGALRM, alarm)
    for name in sorted(GENERATORS):
        print(f"# {name}", flush=True)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        for line in attack(name, rng, cases, tries):
            print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

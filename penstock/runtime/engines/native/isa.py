"""Instruction sets: which ones kernels may use."""

from __future__ import annotations

import os
from enum import IntFlag

from penstock.errors import InputError

#: Environment variable: the highest instruction set to use.
VARIABLE = "PENSTOCK_ISA"


class Isa(IntFlag):
    """A set of instruction sets (``enum pk_isa``). They are no chain: a processor may have AVX-512
    without AVX-VNNI. In ascending order all the same, for :data:`VARIABLE`."""

    SCALAR = 1 << 0
    AVX2 = 1 << 1
    AVXVNNI = 1 << 2
    AVX512 = 1 << 3
    AVX512VNNI = 1 << 4
    AVX512VBMI = 1 << 5
    NEON = 1 << 6
    DOTPROD = 1 << 7
    I8MM = 1 << 8

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members, in ascending order."""
        return tuple(name for name, member in NAMES.items() if member in self)


#: Where one of these is, there are vector kernels: AVX2 is wherever AVX-512 and VNNI are.
VECTORS = Isa.AVX2 | Isa.NEON

#: As ``PENSTOCK_ISA`` has them.
NAMES: dict[str, Isa] = {
    "scalar": Isa.SCALAR,
    "avx2": Isa.AVX2,
    "avxvnni": Isa.AVXVNNI,
    "avx512": Isa.AVX512,
    "avx512vnni": Isa.AVX512VNNI,
    "avx512vbmi": Isa.AVX512VBMI,
    "neon": Isa.NEON,
    "dotprod": Isa.DOTPROD,
    "i8mm": Isa.I8MM,
}


def allowed(detected: Isa, highest: str | None = None) -> Isa:
    """Of the ``detected`` instruction sets those up to ``highest`` (default: ``PENSTOCK_ISA``).

    Raises:
        InputError: it is no instruction set, or one that is not there.
    """
    highest = os.environ.get(VARIABLE) if highest is None else highest
    if not highest:
        return detected
    limit = NAMES.get(highest.lower())
    if limit is None:
        raise InputError(f"{VARIABLE} is {highest!r}; choose {', '.join(NAMES)}")
    if limit not in detected:
        raise InputError(
            f"{VARIABLE} is {highest!r}, which this machine lacks; it has"
            f" {', '.join(detected.names)}"
        )
    return Isa(detected & (2 * limit - 1))

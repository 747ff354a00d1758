"""What every sweep goes over: the cases of the operator table.

An entry without a case fails ``test_entries``, so a new entry is in every sweep at once. A sweep is
a file beside this one: its fast part runs with all tests, the whole of it is marked ``sweep`` and
runs by ``make sweep``.
"""

from __future__ import annotations

import shape_cases  # noqa: F401  registers its cases
import window_cases  # noqa: F401
from operator_cases import CASES, Case


def named_cases() -> list[tuple[str, Case]]:
    """Each case with a name that is good as a test's id."""
    return [(f"{number}-{case.entry}", case) for number, case in enumerate(CASES)]


def first_cases() -> list[tuple[str, Case]]:
    """The first case of each entry: the fast part of a sweep."""
    found: dict[str, tuple[str, Case]] = {}
    for name, case in named_cases():
        found.setdefault(case.entry, (name, case))
    return list(found.values())

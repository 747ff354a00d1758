"""The platform that a build is for: this machine's, unless ``PENSTOCK_PLATFORM`` names another."""

from __future__ import annotations

import os
import platform
import sys

#: Environment variable: a platform to build for, such as ``linux-aarch64``.
VARIABLE = "PENSTOCK_PLATFORM"


def target() -> tuple[str, str]:
    """The platform as ``(sys.platform, platform.machine())`` are on it.

    Raises ValueError for a name that is not of that form.
    """
    asked = os.environ.get(VARIABLE)
    if not asked:
        return host()
    system, _, machine = asked.partition("-")
    if not (system and machine):
        raise ValueError(f"{VARIABLE} is {asked!r}; write SYSTEM-MACHINE, such as linux-aarch64")
    return system, machine


def host() -> tuple[str, str]:
    """This machine's."""
    return sys.platform, platform.machine()

"""What all tests share."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# Tests run beside each other on small machines; torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Graphs are checked after each step of a pipeline.
os.environ.setdefault("PENSTOCK_CHECK_STEPS", "1")

# Generated cases compile and run models: they take as long as they take, and the same ones are
# drawn in every run so that a failure can be repeated.
settings.register_profile("penstock", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("penstock")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Fixtures draw the same numbers whichever test asks for them first."""
    _seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Each test draws the same numbers in every run, alone or among others: one that fails can be
    repeated."""
    _seed(1)


def _seed(seed: int) -> None:
    # Tests of the runtime do without PyTorch.
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what has one of the markers below, unless it was asked for with ``-m``, and what
    runs our own kernels where their library is missing or of other sources."""
    reason = None if "CI" in os.environ else _no_kernels()
    for item in items if reason is not None else ():
        call = getattr(item, "callspec", None)
        beside = item.path.parent.name == "tests"  # which looks at sources and runs nothing
        values = () if call is None else call.params.values()
        if any(isinstance(value, str) and value == "native" for value in values) and not beside:
            item.add_marker(pytest.mark.skip(reason=f"{reason}; build them with: make native"))
    if config.option.markexpr:
        return
    for item in items:
        for marker in ("slow", "sweep", "browser", "cluster"):
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"{marker}; ask for it with -m {marker}"))


def _no_kernels() -> str | None:
    """Why our own kernels cannot run here. In CI that is a failure and no reason to skip."""
    from penstock.runtime.engines.native import library

    return library.reason_against()

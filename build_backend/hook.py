"""Hatchling's build hook: puts XNNPACK's library, our own kernels and the scripts of the pages into
the package and tags the wheel with the platform. Runs for wheels and for editable installs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))

import native_library
import pages
import xnnpack_library
from target import VARIABLE, host, target


class XnnpackHook(BuildHookInterface):  # type: ignore[type-arg,misc]
    def dependencies(self) -> list[str]:
        return pages.missing_requirements(Path(self.root))

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._bundle_pages()
        if os.environ.get("PENSTOCK_WITHOUT_XNNPACK"):
            self.app.display_warning(
                f"Building without XNNPACK: at run time, install {xnnpack_library.REQUIREMENT} or"
                " set PENSTOCK_XNNPACK_LIBRARY"
            )
            xnnpack_library.remove(Path(self.root))
            native_library.remove(Path(self.root))
            return
        platform = target()
        if version == "editable" and platform != host():
            raise ValueError(f"an editable install is for this machine; unset {VARIABLE}")
        wheel = xnnpack_library.wheel_for(*platform)
        xnnpack_library.provide(Path(self.root), wheel)
        self._build_kernels(platform)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{wheel.tag}"

    def _build_kernels(self, platform: tuple[str, str]) -> None:
        """Penstock works without them; a compiler that was asked for must build them, though."""
        try:
            native_library.provide(Path(self.root), *platform)
        except (native_library.NoCompilerError, native_library.CompilerError) as error:
            if os.environ.get("CC"):
                raise
            native_library.remove(Path(self.root))
            self.app.display_warning(f"Building without our own kernels: {error}")

    def _bundle_pages(self) -> None:
        """Only ``--html`` needs them."""
        try:
            pages.provide(Path(self.root))
        except pages.NoPagesError as error:
            self.app.display_warning(f"Building without pages (--html): {error}")

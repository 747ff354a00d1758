"""Writes ``penstock/formats/releases.txt``: which release of ExecuTorch has what a file may need.

``python -m docs.executorch_history CLONE`` reads the tags of a clone of ExecuTorch's repository,
and its newest commit as the release that ``version.txt`` names there. What a release can run is
what its sources name: a node kind's case and a data type's in ``XNNCompiler.cpp``, a kernel in
the lists that its libraries are made from, a feature of the format where the runtime reads it.
What shows as a check that is gone, or only in XNNPACK itself, is in ``TRIED``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.formats.payload_nodes import FORMS
from penstock.formats.releases import TABLE, Feature
from penstock.formats.schema import load
from penstock.graph.dtypes import DataType

COMPILER = "backends/xnnpack/runtime/XNNCompiler.cpp"
EXECUTOR = "runtime/executor"
#: Lists of kernels, and the code that registers those of the runtime itself.
LISTS = (
    "kernels/portable/functions.yaml",
    "kernels/optimized/optimized.yaml",
    "kernels/quantized/quantized.yaml",
    "kernels/prim_ops/register_prim_ops.cpp",
    "kernels/prim_ops/et_copy_ops.cpp",
)
_KERNEL = re.compile(
    r'^- (?:op|func): ([\w:.]+)|"((?:executorch_prim|aten|et_copy)::[\w.]+)"', re.MULTILINE
)
#: Where the runtime reads a feature of the format, and by what it is recognized there.
READERS: Mapping[Feature, tuple[str, str]] = {
    Feature.CONSTANT_SEGMENT: (EXECUTOR, "constant_segment()"),
    Feature.INITIAL_STATE: (EXECUTOR, "mutable_data_segments()"),
    Feature.NAMED_DATA: (EXECUTOR, "named_data()"),
    Feature.EXTERNAL_DATA: (EXECUTOR, "TensorDataLocation::EXTERNAL"),
    Feature.DEVICE_MEMORY: (EXECUTOR, "non_const_buffer_device()"),
    Feature.PAYLOAD_HEADER: (COMPILER, "XNNHeader::Parse"),
    Feature.PAYLOAD_NAMED_CONSTANTS: (COMPILER, "named_key()"),
    Feature.PAYLOAD_SCALES_APART: (COMPILER, "scale_buffer_idx()"),
    # Tells constants that are packed from those that must stay.
    Feature.PAYLOAD_OPERANDS_BY_NAME: (COMPILER, "getPackedValueIds("),
}
#: Seen on the releases' wheels: the release before refuses it.
TRIED: Mapping[Feature, str] = {
    Feature.PAYLOAD_WIDE_TOKENS: "0.7.0",
    Feature.PAYLOAD_SPARSE_POOLING: "0.7.0",
}
HEADER = """\
# What needs which release of ExecuTorch. Made by: python -m docs.executorch_history CLONE
# A line is what it is, its name, the first release that has it, and the last one if it is gone.
"""


class Clone:
    """The sources of each release, oldest first."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        tags = [t for t in self.git("tag").split() if re.fullmatch(r"v\d+\.\d+\.\d+", t)]
        tags.sort(key=lambda tag: [int(part) for part in tag[1:].split(".")])
        self.commits = {tag[1:]: self.git("rev-parse", f"refs/tags/{tag}").strip() for tag in tags}
        newest = self.git("rev-parse", "@").strip()
        version = self.git("show", f"{newest}:version.txt").strip()
        self.commits.setdefault(version, newest)

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", self.folder, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def text(self, release: str, path: str) -> str:
        """A file of a release, empty if it has none."""
        command = ["git", "-C", self.folder, "show", f"{self.commits[release]}:{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def reads(self, release: str, where: str, what: str) -> bool:
        arguments = ["grep", "-qF", what, self.commits[release], "--", where]
        command = ["git", "-C", self.folder, *arguments]
        return subprocess.run(command, check=False).returncode == 0


def lines(clone: Clone) -> Iterable[str]:
    """The table's lines."""
    releases = list(clone.commits)
    yield f"releases {' '.join(releases)}"
    compilers = {release: clone.text(release, COMPILER) for release in releases}
    unions = dict(load("xnnpack").unions["XNodeUnion"].members)
    for kind in FORMS:
        member = list(unions)[kind - 1]
        cases = (f"_DEFINE({member.removeprefix('XNN')})", f"XNodeUnion::{member}:")
        found = [r for r, text in compilers.items() if any(case in text for case in cases)]
        yield from _line("node", kind.name, found, releases)
    for dtype in DataType:
        case = f"DataType::xnn_datatype_{dtype.name.lower()}:"
        found = [release for release, text in compilers.items() if case in text]
        yield from _line("datatype", dtype.name, found, releases)
    for feature, (where, what) in READERS.items():
        found = [release for release in releases if clone.reads(release, where, what)]
        yield from _line("feature", feature.name, found, releases)
    for feature, first in TRIED.items():
        yield from _line("feature", feature.name, releases[releases.index(first) :], releases)
    kernels = {release: _kernels(clone, release) for release in releases}
    for name in sorted(set().union(*kernels.values())):
        yield from _line("kernel", name, [r for r in releases if name in kernels[r]], releases)


def _kernels(clone: Clone, release: str) -> set[str]:
    names = set()
    for path in LISTS:
        for listed, registered in _KERNEL.findall(clone.text(release, path)):
            name = (listed or registered).removesuffix(".")
            names.add(name if "::" in name else f"aten::{name}")
    return names


def _line(what: str, name: str, found: list[str], releases: list[str]) -> Iterable[str]:
    """Refuses a thing that went and came again: a first and a last release would not tell it."""
    if not found:
        return
    first, last = releases.index(found[0]), releases.index(found[-1])
    if found != releases[first : last + 1]:
        raise SystemExit(f"error: {name} is in {found}, with gaps")
    yield f"{what} {name} {found[0]}" + ("" if last == len(releases) - 1 else f" {found[-1]}")


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m docs.executorch_history CLONE")
    root = Path(__file__).parent.parent
    (root / "penstock/formats" / TABLE).write_text(
        HEADER + "".join(f"{line}\n" for line in lines(Clone(sys.argv[1])))
    )


if __name__ == "__main__":
    main()

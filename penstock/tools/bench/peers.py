"""The runtimes that Penstock can be measured beside."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.errors import InputError, install_hint


@dataclass(frozen=True)
class Peer:
    """A runtime: the ``packages`` it needs, the ``extra`` of ours that installs them, and the
    suffix of the files that it takes."""

    name: str
    title: str
    packages: tuple[str, ...]
    extra: str
    takes: str

    @property
    def needs_model(self) -> bool:
        """Whether it needs the model and not the program file."""
        return self.takes != ".pte"

    def missing(self) -> str | None:
        """One line that says what is not installed, and how to get it."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if not absent:
            return None
        verb = "is" if len(absent) == 1 else "are"
        return (
            f"{self.title} is left out: {', '.join(absent)} {verb} not installed; "
            f"{install_hint(self.extra)}"
        )


_ONNX = ("torch", "onnx", "onnxscript")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("executorch", "ExecuTorch", ("executorch", "torch"), "bench", ".pte"),
        Peer("onnxruntime", "ONNX Runtime", ("onnxruntime", *_ONNX), "bench", ".onnx"),
        # Its int8 model is made by ONNX Runtime's tools.
        Peer("openvino", "OpenVINO", ("openvino", "onnxruntime", *_ONNX), "bench", ".onnx"),
        Peer("torch", "PyTorch, eager", ("torch",), "compile", ".pt2"),
    )
}


def parse_peers(text: str | None) -> tuple[Peer, ...]:
    """``executorch,torch`` -> the peers. Raises InputError for a name that is none."""
    names: Sequence[str] = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise InputError(f"--against {name!r} is unknown; choose from {', '.join(PEERS)}")
    return tuple(PEERS[name] for name in dict.fromkeys(names))

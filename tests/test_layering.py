"""Who may import whom (design, section 2), and what importing costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import ROOT, cycles, import_graph, imports_of, modules

#: room -> the rooms that it may import beside itself. Names are below ``penstock``; a module is in
#: the room of the longest name that fits.
ALLOWED: dict[str, set[str]] = {
    "errors": {"text"},
    "notebook": set(),
    "faults": {"errors"},
    "files": {"errors"},
    "text": set(),
    "labels": {"errors", "files", "text"},
    "pictures": {"errors", "files", "runtime", "zoo"},
    "graph": {"errors"},
    "formats": {"errors", "graph"},
    "runtime.blocks": set(),
    "runtime.mapped": {"runtime.blocks"},
    "runtime.dtypes": {"errors", "formats"},
    "runtime.kernels": {"runtime.dtypes", "runtime.mapped"},
    "runtime.free_memory": {"runtime.blocks"},
    "runtime.engines": {
        "errors", "graph", "runtime.blocks", "runtime.free_memory", "runtime.mapped",
    },
    "runtime": {
        "errors", "faults", "files", "formats", "graph", "notebook", "runtime.blocks",
        "runtime.mapped", "runtime.dtypes", "runtime.free_memory", "runtime.kernels",
        "runtime.engines",
    },
    "compiler": {"errors", "faults", "files", "formats", "graph", "notebook", "text"},
    "zoo": {"errors", "faults", "files", "compiler", "formats", "graph"},
    "llm": {"errors", "faults", "files", "runtime", "runtime.free_memory", "formats", "graph"},
    "llm.export": {"errors", "faults", "files", "llm", "compiler", "formats", "graph"},
    "pages": {"errors", "files"},
    "tools": {
        "errors", "files", "faults", "formats", "graph", "notebook", "runtime", "runtime.blocks",
        "runtime.engines", "text",
    },
    "batch": {
        "errors", "files", "labels", "pictures", "runtime", "runtime.engines", "zoo",
    },
    "": {"errors", "runtime", "compiler", "cli"},
}  # fmt: skip
ALLOWED["cli"] = {*ALLOWED} - {"runtime.kernels"}
#: Rooms that may import the libraries that only compiling needs.
TORCH_ROOMS = {"compiler", "zoo", "cli", "llm.export"}
TORCH = {"torch", "torchao", "torchvision", "torchaudio", "timm", "transformers"}
#: Modules that are a peer's worker process, and the packages that these alone may import.
PEERS = {
    "penstock.tools.bench.runtimes.executorch": {"executorch", "torch"},
    "penstock.tools.bench.runtimes.torch": {"torch"},
}

GRAPH = import_graph()


def room_of(module: str) -> str:
    name = module.removeprefix("penstock").removeprefix(".")
    fitting = [room for room in ALLOWED if room and f"{name}.".startswith(f"{room}.")]
    return max(fitting, key=len, default="")


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_go_down_only(room: str) -> None:
    own = [module for module in GRAPH if room_of(module) == room]
    assert own
    arrows = [(module, other) for module in own for other in GRAPH[module]]
    assert not [(m, other) for m, other in arrows if room_of(other) not in {room, *ALLOWED[room]}]


def test_every_folder_is_a_room() -> None:
    assert {module for module in GRAPH if room_of(module) == ""} == {
        "penstock",
        "penstock.__main__",
    }


def test_nobody_imports_who_imports_him() -> None:
    """Also not by way of others, and not inside a function."""
    assert not list(cycles(GRAPH))


#: Who may import an engine's files: whoever lists the engines, the engines beside it that lean on
#: it, the threads, whose pool XNNPACK's library brings, and whoever prints what there is.
READERS = {
    "xnnpack": {"runtime.engines.named", "runtime.engines.threads", "runtime.engines.native"},
    "native": {"runtime.engines.named"},
}

#: Who may look at any engine: what shows and measures the machine.
SHOW = ("cli.machine", "tools.profiling.machine")


@pytest.mark.parametrize("engine", READERS)
def test_engines_show_only_where_they_are_chosen(engine: str) -> None:
    folder = f"penstock.runtime.engines.{engine}"
    allowed = (folder, *(f"penstock.{name}" for name in (*SHOW, *READERS[engine])))
    readers = {
        module for module, others in GRAPH.items() for other in others if other.startswith(folder)
    }
    assert readers
    assert not [module for module in sorted(readers) if not module.startswith(allowed)]


def test_libraries() -> None:
    wrong = []
    for module, path in modules().items():
        heads = {name.partition(".")[0] for name in imports_of(path)}
        torch_here = room_of(module) in TORCH_ROOMS
        heads -= PEERS.get(module, set())
        wrong += [(module, head) for head in heads & TORCH if not torch_here]
        wrong += [(module, head) for head in heads & {"executorch"}]
    assert not wrong


def test_nobody_imports_a_peer() -> None:
    """They are named to ``python -m`` and imported in processes of their own."""
    assert PEERS.keys() <= GRAPH.keys()
    readers = [(m, other) for m, others in GRAPH.items() for other in others if other in PEERS]
    assert not readers


def test_imports_are_seen() -> None:
    """The checker itself finds what it is to find: at the top, inside functions, in circles."""
    assert "penstock.formats.program_reader" in GRAPH["penstock.runtime.program"]
    # inside a method
    assert "penstock.runtime.engines.named" in GRAPH["penstock.runtime.program"]
    assert room_of("penstock.runtime.engines.xnnpack.engine") == "runtime.engines"
    assert "torch" in {
        name.partition(".")[0]
        for name in imports_of(ROOT / "penstock" / "compiler" / "pipeline.py")
    }
    circle = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}}
    assert list(cycles(circle)) == [["a", "b", "c"]]


def test_relative_and_type_checking_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = tmp_path / "penstock" / "graph" / "sample.py"
    sample.parent.mkdir(parents=True)
    sample.write_text(
        "from typing import TYPE_CHECKING\n"
        "from . import index\n"
        "from ..errors import InputError\n"
        "if TYPE_CHECKING:\n"
        "    from penstock.runtime import load\n"
        "def late():\n"
        "    import penstock.graph.kinds\n"
    )
    monkeypatch.setattr("import_graph.ROOT", tmp_path)
    assert imports_of(sample) == {
        "typing.TYPE_CHECKING",
        "penstock.graph.index",
        "penstock.errors.InputError",
        "penstock.graph.kinds",
    }


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return result.stdout


#: Prints what is loaded of the libraries and rooms that loading a program does without.
LOADED = (
    "import sys\n"
    "heavy = ('torch', 'torchao', 'executorch', 'scipy', 'pandas', 'PIL', 'penstock.compiler')\n"
    "print([m for m in heavy if m in sys.modules])\n"
)


def test_loading_imports_no_torch() -> None:
    out = run("import penstock; penstock.load; import penstock.cli.runners\n" + LOADED)
    assert out.strip() == "[]"
    out = run("import penstock.compiler.progress\n" + LOADED)
    assert out.strip() == "['penstock.compiler']"


def test_compiler_is_imported_when_asked_for() -> None:
    out = run(
        "import penstock, sys; print('penstock.compiler' in sys.modules, 'lower' in dir(penstock));"
        "\ntry: penstock.nothing\nexcept AttributeError as e: print(e)"
    )
    assert out.split("\n")[:2] == ["False True", "module 'penstock' has no attribute 'nothing'"]


PACKAGES = [name for name, path in modules().items() if "\n__all__ = " in path.read_text("utf-8")]


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_module_names_is_there(name: str) -> None:
    """Also what is imported when it is first asked for."""
    module = importlib.import_module(name)
    assert [n for n in module.__all__ if getattr(module, n, None) is None] == []

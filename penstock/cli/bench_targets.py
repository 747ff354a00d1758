"""From what ``penstock bench`` is given to contestants: files, models, and what peers make of
these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penstock import zoo
from penstock.cli.console import Stages
from penstock.cli.feeds import read_inputs
from penstock.errors import InputError, PenstockError
from penstock.formats.data_file import read_data_file
from penstock.runtime import load
from penstock.runtime.program import ENGINES, LoadedProgram
from penstock.runtime.sources import map_file
from penstock.tools import samples as sample_files
from penstock.tools.bench.child import Child, WorkerError
from penstock.tools.bench.peers import Peer
from penstock.tools.bench.precision import precision_of
from penstock.tools.bench.run import Contestant, Samples


@dataclass(frozen=True)
class BenchRequest:
    """What to measure: ``.pte`` files, zoo models or factories; ``model`` is what the files were
    compiled from."""

    targets: Sequence[str]
    peers: Sequence[Peer] = ()
    model: str | None = None
    weights: str | None = None
    quantize: bool = False
    engines: Sequence[str] = ("auto",)
    inputs: Sequence[str] = ()
    #: The data files of those ``.pte`` files whose weights are outside.
    data: Sequence[str] = ()


@dataclass
class _Model:
    """A model, the process that makes files of it (``penstock.cli.bench_files``), and what that
    said to each job."""

    source: str
    folder: Path
    maker: Child
    made: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source.rpartition(":")[2]


@dataclass(frozen=True)
class _File:
    path: Path
    label: str
    precision: str
    model: _Model | None
    samples: Samples
    data: tuple[Path, ...] = ()


def contestants(
    request: BenchRequest, folder: Path, stages: Stages, notice: Callable[[str], None]
) -> list[Contestant]:
    """Makes whatever is needed in ``folder`` and lists who is to be measured, ours first.

    What cannot be had is told to ``notice``, one line each. Raises a ``PenstockError`` where one
    of the files or models themselves cannot be had.
    """
    for name in request.engines:
        if name not in ENGINES:
            raise InputError(f"--engine {name!r} is unknown; choose from {', '.join(ENGINES)}")
    for target in request.targets:
        if not _is_file(target) and target not in zoo.names() and ":" not in target:
            raise InputError(
                f"{target!r} is no .pte file and no model; give a file, a model of the zoo "
                "(see: penstock models) or package.module:callable"
            )
    with ExitStack() as stack:
        preparation = _Preparation(request, folder, stages, notice, stack)
        return preparation.contestants()


def _is_file(target: str) -> bool:
    return target.endswith(".pte") or Path(target).is_file()


class _Preparation:
    def __init__(
        self,
        request: BenchRequest,
        folder: Path,
        stages: Stages,
        notice: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._request, self._folder, self._stages = request, folder, stages
        self._notice, self._stack = notice, stack
        self._models: dict[str, _Model] = {}

    def contestants(self) -> list[Contestant]:
        files = [self._file(target, i) for i, target in enumerate(self._request.targets)]
        found = [
            Contestant(
                "penstock" if engine == "auto" else f"penstock-{engine}",
                "Penstock" if engine == "auto" else f"Penstock, {engine}",
                *(file.label, file.path, file.precision, file.samples, file.data),
            )
            for file in files
            for engine in self._request.engines
        ]
        for peer in self._request.peers:
            missing = peer.missing()
            if missing is not None:
                self._notice(missing)
            elif peer.needs_model:
                found += self._from_models(peer, files)
            else:
                found += [
                    Contestant(
                        *(peer.name, peer.title, f.label, f.path, f.precision, f.samples, f.data)
                    )
                    for f in files
                ]
        return found

    def _file(self, target: str, index: int) -> _File:
        """A file that was given, or that a model is compiled into."""
        model = self._model(target)
        if _is_file(target):
            path, label = Path(target), Path(target).name
        else:
            assert model is not None
            kind = "int8" if self._request.quantize else "float"
            path = Path(self._made(model, f".pte {kind}")["path"])
            label = f"{model.name}.pte"
        data = self._data(path) if _is_file(target) else ()
        loaded = load(path, data=data)
        method = loaded.program.method(loaded.default_name())
        assert method is not None
        samples = self._samples(loaded, model, self._folder / f"inputs{index}.npz")
        return _File(path, label, precision_of(loaded.program, method), model, samples, data)

    def _data(self, path: Path) -> tuple[Path, ...]:
        """The data files for a program: not those whose data it has itself, as one that was written
        in one file beside one in two."""
        own = load(path).program.named_data.keys() if self._request.data else set()
        files = tuple(map(Path, self._request.data))
        return tuple(file for file in files if not own & read_data_file(map_file(file)).keys())

    def _model(self, target: str) -> _Model | None:
        source = self._request.model if _is_file(target) else target
        if source is None:
            return None
        if source not in self._models:
            if find_spec("torch") is None:  # the process could only end
                raise ModuleNotFoundError("no torch", name="torch")
            folder = self._folder / f"model{len(self._models)}"
            folder.mkdir()
            weights = [] if self._request.weights is None else [self._request.weights]
            maker = Child(
                "penstock.cli.bench_files", source, str(folder), *weights, OMP_NUM_THREADS="1"
            )
            self._models[source] = _Model(source, folder, self._stack.enter_context(maker))
        return self._models[source]

    def _samples(self, loaded: LoadedProgram, model: _Model | None, path: Path) -> Samples:
        """Those that the user gives, else the model's, else random ones."""
        if self._request.inputs:
            sample_files.write_inputs(
                path, read_inputs(self._request.inputs, loaded.method().inputs)
            )
            return Samples((path,))
        if model is not None:
            try:
                return self._of_model(model)
            except PenstockError as error:
                self._notice(f"no samples of {model.source}, so random inputs: {error}")
        method = loaded.program.method(loaded.default_name())
        assert method is not None
        sample_files.write_inputs(path, sample_files.random_inputs(method))
        return Samples((path,))

    def _of_model(self, model: _Model) -> Samples:
        count = self._made(model, "samples")["samples"]
        inputs = tuple(model.folder / f"in{index}.npz" for index in range(count))
        eager = (sample_files.read_inputs(model.folder / f"out{i}.npz") for i in range(count))
        return Samples(inputs, tuple(eager))

    def _from_models(self, peer: Peer, files: Sequence[_File]) -> list[Contestant]:
        """One contestant for each model and precision that is among the files."""
        found: dict[tuple[str, str], Contestant] = {}
        for file in files:
            if file.model is None:
                self._notice(
                    f"{peer.title} is not measured beside {file.label}: it needs the model; name "
                    "that with --model (a model of the zoo or package.module:callable)"
                )
                continue
            precision, job = _asked_of(peer, file.precision)
            key = file.model.source, precision
            if key in found:
                continue
            try:
                path = Path(self._made(file.model, job)["path"])
            except PenstockError as error:
                self._notice(f"{peer.title} has no {file.model.name} in {precision}: {error}")
                continue
            label = f"{file.model.name}{peer.takes}"
            found[key] = Contestant(peer.name, peer.title, label, path, precision, file.samples)
        return list(found.values())

    def _made(self, model: _Model, job: str) -> dict[str, Any]:
        """What ``job`` gives of ``model``, made once. Raises InputError where it fails."""
        if job not in model.made:
            with self._stages.stage("samples, eager" if job == "samples" else f"make {job}"):
                try:
                    model.made[job] = model.maker.ask(job=job)
                except WorkerError as error:
                    model.made[job] = {"error": str(error)}
        found = model.made[job]
        if "error" in found:
            raise InputError(found["error"])
        return found


def _asked_of(peer: Peer, precision: str) -> tuple[str, str]:
    """The precision in which a peer stands beside a file, and the job that makes its file."""
    if peer.takes == ".pt2":
        return "float", ".pt2"  # eager PyTorch is the float model itself
    if precision == "4-bit":
        precision = "dynamic int8"  # the nearest that the tools make
    return precision, f"{peer.takes} {precision}"

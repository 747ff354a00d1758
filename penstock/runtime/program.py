"""Loading a ``.pte`` file: :func:`load` and :class:`LoadedProgram`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from penstock.errors import InputError, InvalidProgramError, PenstockError, shorten
from penstock.faults import IF_SOUND, fault, faults, from_handler
from penstock.formats import program as formats
from penstock.formats.data_file import attach, read_data_file
from penstock.formats.program import Buffer
from penstock.formats.program_reader import read_program
from penstock.formats.sources import KEY as SOURCES
from penstock.formats.sources import MethodSources, decode_sources
from penstock.notebook import Table, render
from penstock.runtime.bound_delegate import BoundDelegate, compile_delegate
from penstock.runtime.engines.threads import Threads
from penstock.runtime.mapped import MappedFile, drop
from penstock.runtime.method import Method
from penstock.runtime.method_values import signature, signature_text
from penstock.runtime.profile import Profile
from penstock.runtime.sources import BUFFERS, Source, absolute, read_source
from penstock.runtime.specs import listed
from penstock.runtime.turns import Turns

if TYPE_CHECKING:
    from penstock.graph.graph import XnnGraph
    from penstock.runtime.engines.protocol import Engine

DEFAULT_METHOD = "forward"
#: Engines by name.
ENGINES = ("auto", "xnnpack", "native")
EngineChoice: TypeAlias = "str | Engine | Sequence[Engine]"


def load(
    source: Source,
    *,
    data: Source | Sequence[Source] = (),
    threads: int | None = None,
    engine: EngineChoice = "auto",
    profile: bool = False,
    copy: bool = False,
    spare: bool = False,
) -> LoadedProgram:
    """Load an ExecuTorch program (``.pte``) from a path or from its bytes.

    A file is mapped into memory, so its weights are read where they lie. It may be replaced
    (renamed over, deleted) while the program is in use; writing to it or cutting it short ends the
    process. Where that cannot be ruled out, ``copy`` reads it at once. The whole structure is
    checked here; kernels are looked up and delegates compiled when a method is first used.

    Args:
        source: a path, or the content as bytes, bytearray or memoryview.
        data: the data file (``.ptd``), or files, of a program whose weights are not in the
            program itself: paths, or the contents.
        threads: how many threads a delegate may use; by default one for each CPU that the process
            may use.
        engine: what executes the delegates: ``"auto"`` (our own kernels where they are faster
            here, else XNNPACK), ``"xnnpack"`` (the bits of the stock runtime) or ``"native"`` (our
            own kernels for whatever they can run); or engines of your own
            (:class:`~penstock.runtime.engines.protocol.Engine`), the preferred one first; the last
            one gets what no other takes.
        profile: measure each instruction and node, see :meth:`LoadedProgram.profile`; a call takes
            a little longer.
        copy: read the files into memory instead of mapping them, which takes their size more.
        spare: read rows of large tables (embeddings) from the file each time, so that its pages do
            not stay in memory: for models that read other rows with each call.

    Raises:
        InputError: there is no such file, it cannot be read, a data file does not belong to the
            program, or ``threads`` is less than 1.
        InvalidProgramError: the content is not a program or a data file, or a damaged one.
        UnsupportedError: it is of another version of its format.
    """
    if engine not in ENGINES if isinstance(engine, str) else not _are_engines(engine):
        raise InputError(
            f"engine is {shorten(repr(engine))}; choose {' or '.join(map(repr, ENGINES))}, or give"
            " engines of your own"
        )
    with faults("load"):
        return _loaded(source, data, _Options(threads, engine, profile, copy, spare))


class _Options(NamedTuple):
    """See :func:`load`."""

    threads: int | None
    engine: EngineChoice
    profile: bool
    copy: bool
    spare: bool


def _loaded(source: Source, data: Source | Sequence[Source], options: _Options) -> LoadedProgram:
    program, mapping = read_source(
        source, "program", read_program, copy=options.copy, spare=options.spare
    )
    mappings = [mapping]
    files = [data] if isinstance(data, (str, os.PathLike, *BUFFERS)) else data
    if not isinstance(files, Sequence):
        raise InputError(f"data is a path, bytes or a list of them, not {type(data).__name__}")
    for file in files:
        pieces, mapping = read_source(
            file, "data file", read_data_file, copy=options.copy, spare=options.spare
        )
        mappings.append(mapping)
        attach(program, pieces)
    loaded = LoadedProgram(program, *options[:2], mappings, options.profile)
    loaded._options = options
    loaded._files = tuple(map(absolute, (source, *files)))
    return loaded


def _are_engines(given: object) -> bool:
    engines = given if isinstance(given, Sequence) else (given,)
    return len(engines) > 0 and all(hasattr(engine, "compile") for engine in engines)


def _load_again(files: Sequence[Source], *options: Any) -> LoadedProgram:
    """What a pickled program becomes."""
    return load(files[0], data=files[1:], **_Options(*options)._asdict())


class LoadedProgram:
    """A program ready to be run. Made by :func:`load`.

    ``program(*inputs)`` runs the method ``forward``, or the only one there is. A program pickles
    as the absolute paths (or the contents) of its files and its options: it is loaded again where
    it is unpickled, with its buffers in their initial state.
    """

    def __init__(
        self,
        program: formats.Program,
        threads: int | None = None,
        engine: EngineChoice = "auto",
        mappings: Sequence[object] = (),
        profile: bool = False,
    ) -> None:
        """Those ``mappings`` that are an ``mmap`` are files that the program's data lies in."""
        self.program = program
        self._mappings = mappings
        self._options = _Options(threads, engine, profile, False, False)
        self._threads = Threads(threads)
        self._engines: Sequence[Engine] | None = None
        self._methods: dict[str, Method] = {}
        self._turns = Turns()
        self._default: Method | None = None
        #: The program's file and its data files: absolute paths, or contents.
        self._files: tuple[str | Buffer, ...] = ()
        #: Of a clone: the program that packed the weights, and its engines' siblings.
        self._original: LoadedProgram | None = None
        self._siblings: dict[int, Engine] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._files:
            raise pickle.PicklingError("only a program that penstock.load made can be pickled")
        files = [file if isinstance(file, str) else bytes(file) for file in self._files]
        return _load_again, (files, *self._options)

    def __repr__(self) -> str:
        """The file, and each method with what it takes and gives."""
        methods = (f"  {signature_text(method)}" for method in self.program.methods)
        return "\n".join((f"LoadedProgram({self._name()})", *methods))

    def _repr_html_(self) -> str:
        rows = [
            (*signature(method), listed(dict.fromkeys(d.id for d in method.delegates)))
            for method in self.program.methods
        ]
        headings = ("method", "inputs", "outputs", "delegated to")
        return render(Table(f"LoadedProgram: {self._name()}", headings, rows))

    def _name(self) -> str:
        first = self._files[0] if self._files else b""
        return first if isinstance(first, str) else f"{len(first):,} bytes"

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""
        return tuple(method.name for method in self.program.methods)

    def method(self, name: str | None = None) -> Method:
        """The method of that name; by default ``forward``, or the only one there is.

        The first call checks the method and compiles its delegates.

        Raises:
            InputError: there is no such method.
            InvalidProgramError, UnsupportedError: see :class:`Method`.
            BackendUnavailableError: XNNPACK's library is not there or fails its self-test.
        """
        if name is None:
            name = self.default_name()
        with self._turns.lock:
            method = self._methods.get(name) if isinstance(name, str) else None
            if method is None:
                found = self.program.method(name)
                if found is None:
                    raise InputError(
                        f"there is no method {shorten(repr(name))}; the program has"
                        f" {listed(self.methods)}"
                    )
                method = self._methods[name] = self._prepare(found)
        return method

    def backends(self, name: str | None = None) -> tuple[str, ...]:
        """The ids of the backends that the method ``name`` needs (as for :meth:`method`), without
        compiling anything."""
        found = self.program.method(name or self.default_name())
        return () if found is None else tuple(dict.fromkeys(d.id for d in found.delegates))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the default method; see :meth:`Method.__call__`."""
        if self._default is None:
            self._default = self.method()
        return self._default(*args, **kwargs)

    def clone(self, *, threads: int | None = None) -> LoadedProgram:
        """The program once more, to be called at the same time as this one.

        Shared are the file, the constants and the packed weights, which are never written to; each
        has its own memory for intermediate values, its own threads and its own mutable buffers,
        which begin in their initial state. A clone costs about what its intermediate values take.

        Args:
            threads: how many threads a delegate may use; by default as many as here.

        Raises:
            InputError: ``threads`` is less than 1.
        """
        options = self._options
        if threads is not None:
            options = options._replace(threads=threads)
        other = LoadedProgram(
            self.program, options.threads, options.engine, self._mappings, options.profile
        )
        other._options = options
        other._files = self._files
        other._original = self._original or self
        return other

    def profile(self, name: str | None = None, *, reset: bool = False) -> Profile:
        """What the calls of the method ``name`` cost so far: the time of each instruction, kernel,
        delegate and node inside it, with counts. Printed, it is a table. ``reset`` then forgets it.

        Raises InputError unless the program was loaded with ``profile=True``.
        """
        return self.method(name).profile(reset=reset)

    def default_name(self) -> str:
        """The method that is meant where none is named: ``forward``, or the only one there is.

        Raises InputError where there are several and none of them is ``forward``."""
        names = self.methods
        if DEFAULT_METHOD in names:
            return DEFAULT_METHOD
        if len(names) == 1:
            return names[0]
        raise InputError(
            f"the program has no method {DEFAULT_METHOD!r}; name one of {listed(names)}"
        )

    def prepare(
        self,
        method: formats.Method,
        adapt: Callable[[formats.Delegate, XnnGraph], XnnGraph] | None = None,
        like: Method | None = None,
    ) -> Method:
        """A method that is no part of the program, made out of one of its own: on the program's
        engines and threads, with memory for itself. ``adapt`` gives the graph to compile in place
        of a delegate's own; ``like`` is the same method at other sizes, whose packed weights it
        shares. Raises what :meth:`method` raises.
        """
        return self._prepare(method, adapt, like)

    def _prepare(
        self,
        method: formats.Method,
        adapt: Callable[[formats.Delegate, XnnGraph], XnnGraph] | None = None,
        like: Method | None = None,
    ) -> Method:
        alike = dict(zip(map(id, method.delegates), like.delegates, strict=True)) if like else {}
        original = self._original if adapt is None else None
        packed: dict[int, BoundDelegate] = {}
        if original is not None:
            delegates = original.method(method.name).delegates
            packed = {id(d): b for d, b in zip(method.delegates, delegates, strict=True)}

        def compile(delegate: formats.Delegate) -> BoundDelegate:
            if id(delegate) in packed:
                clone = packed[id(delegate)].clone(self._sibling, self._threads)
                if clone is not None:
                    return clone
            bound = compile_delegate(
                delegate,
                self.program.named_data,
                self._open_engines,
                self._threads,
                adapt,
                alike.get(id(delegate)),
            )
            self.release_pages()
            return bound

        try:
            profile = self._options.profile
            return Method(method, compile, self._turns, profile, self._sources(method.name))
        except PenstockError:
            raise
        except (ValueError, TypeError, OverflowError, IndexError) as error:
            # NumPy's word for sizes and strides that make no sense.
            raise InvalidProgramError(
                f"the method {method.name!r} is damaged: {error}; {IF_SOUND}"
            ) from error
        except MemoryError as error:
            raise InvalidProgramError(
                f"the method {method.name!r} asks for more memory than there is: {error}"
            ) from error
        except Exception as error:
            if from_handler(error):
                raise
            raise fault(error, "prepare") from error

    def _sibling(self, engine: Engine) -> Engine:
        """This clone's engine in place of ``engine`` of the original."""
        from penstock.runtime.engines.protocol import Sibling

        found = self._siblings.get(id(engine))
        if found is None:
            found = engine.sibling() if isinstance(engine, Sibling) else engine
            self._siblings[id(engine)] = found
        return found

    def _sources(self, method: str) -> MethodSources:
        """The source map of a method, where there is one and profiles ask for it."""
        data = self.program.named_data.get(SOURCES)
        if data is None or not self._options.profile:
            return MethodSources()
        return decode_sources(data).get(method, MethodSources())

    @property
    def engines(self) -> Sequence[Engine]:
        """What executes the delegates, the preferred one first.

        Raises BackendUnavailableError where they cannot be had.
        """
        return self._open_engines()

    def release_pages(self) -> None:
        """Lets the file's pages leave memory, as they do once a delegate has packed its weights.
        Those that are needed after all come back from the file, or the system's cache of it."""
        for mapping in self._mappings:
            if isinstance(mapping, MappedFile):
                drop(np.frombuffer(mapping, np.uint8))

    def _open_engines(self) -> Sequence[Engine]:
        if self._engines is None:
            engine = self._options.engine
            if not isinstance(engine, str):
                given = engine
                self._engines = given if isinstance(given, Sequence) else (given,)
            else:
                from penstock.runtime.engines.named import engines_named

                self._engines = engines_named(engine, profile=self._options.profile)
        return self._engines

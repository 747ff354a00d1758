"""Builds our own kernels: the C files in ``native`` become one shared library in the package.

The compiler is ``$CC``, or that of the ``ziglang`` package, or a ``cc`` of the system. Each file is
compiled for the instruction set that the end of its name says; the library picks among them when it
is loaded. Needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path("native")
FOLDER = Path("penstock/runtime/engines/native/lib")
STEM = "penstock_native"
#: What the library beside it was built from, and with which compiler.
SOURCE = "SOURCE"

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
#: Flags by the last word of a file's name; files of other names are for every processor.
INSTRUCTION_SETS: dict[str, tuple[str, ...]] = {
    "avx2": _AVX2,
    "avxvnni": (*_AVX2, "-mavxvnni"),
    "avx512": _AVX512,
    "avx512vnni": (*_AVX512, "-mavx512vnni"),
    "avx512vbmi": (*_AVX512, "-mavx512vbmi"),
    "neon": ("-mcpu=generic",),
    "dotprod": ("-mcpu=generic+dotprod",),
    "i8mm": ("-mcpu=generic+dotprod+i8mm",),
}
#: Those of them that are ARM's.
ARM_SETS = ("neon", "dotprod", "i8mm")
_X86, _ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")
FLAGS = (
    "-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off",
    "-fno-stack-protector", "-Wall", "-Wextra", "-Werror=implicit-function-declaration",
)  # fmt: skip
#: zig's names of the platforms, so that its libraries do not depend on this machine's.
TARGETS = {
    ("linux", "x86_64"): "x86_64-linux-gnu.2.28",
    ("linux", "aarch64"): "aarch64-linux-gnu.2.28",
    ("darwin", "arm64"): "aarch64-macos.14.0",
}


class NoCompilerError(RuntimeError):
    """There is nothing to build with; the message says what would help."""


class CompilerError(RuntimeError):
    """The compiler refuses a file; the message has its words."""


def compiler(system: str = sys.platform, machine: str | None = None) -> list[str]:
    """The command that compiles C for this machine.

    Raises NoCompilerError if there is none.
    """
    machine = machine or platform.machine()
    asked = os.environ.get("CC")
    if asked:
        return shlex.split(asked)
    target = TARGETS.get((system, machine))
    if target is not None and importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", target]
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise NoCompilerError(
        f"no C compiler for {system} {machine}: no CC, no ziglang package, no cc, gcc or clang"
    )


def sources(root: Path, machine: str | None = None) -> list[tuple[Path, tuple[str, ...]]]:
    """The C files for a machine's architecture (default: this one's), each with its flags."""
    machine = machine or platform.machine()
    found = []
    for path in sorted((root / SOURCES).glob("*.c")):
        name = path.stem.rpartition("_")[2]
        flags = INSTRUCTION_SETS.get(name, ())
        if not flags or machine in (_ARM if name in ARM_SETS else _X86):
            found.append((path, flags))
    return found


def file_name(system: str = sys.platform) -> str:
    """The library's file name on a platform."""
    return f"lib{STEM}.dylib" if system == "darwin" else f"lib{STEM}.so"


def provide(root: Path, system: str = sys.platform, machine: str | None = None) -> Path:
    """Make sure that the library for a platform (default: this one), built from the sources as they
    are, lies in :data:`FOLDER` below ``root``, and no other. Compiles only if it does not yet.
    Returns its path.

    Raises:
        NoCompilerError: it is not there, and there is no compiler.
        CompilerError: the compiler refuses a file.
    """
    machine = machine or platform.machine()
    folder = root / FOLDER
    library, source = folder / file_name(system), folder / SOURCE
    digest = _digest(root, machine)
    if library.is_file() and source.is_file() and source.read_text().startswith(digest):
        return library
    command = compiler(system, machine)
    remove(root)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        # memcpy and memset are the process's own: no version of libc is asked for.
        plain = ("-nostdlib", "-s") if system == "linux" else ()
        built = _build(command, sources(root, machine), plain, Path(temporary) / library.name)
        # In one step: a process that has the old library mapped keeps it.
        prepared = folder / f".{library.name}.{os.getpid()}"
        shutil.copyfile(built, prepared)
        os.replace(prepared, library)
    source.write_text(f"{digest}\n{_provenance(command)}\n")
    return library


def remove(root: Path) -> None:
    """Take away what was built for whichever platform."""
    folder = root / FOLDER
    for name in (SOURCE, *(file_name(system) for system in ("linux", "darwin"))):
        (folder / name).unlink(missing_ok=True)


def _provenance(command: Sequence[str]) -> str:
    """The compiler, in words that are the same on every machine that has it."""
    if "ziglang" not in command:
        return " ".join(command)
    version = importlib.metadata.version("ziglang")
    return " ".join([f"ziglang {version}", *command[command.index("ziglang") + 1 :]])


def _build(
    command: Sequence[str], files: Sequence[tuple[Path, tuple[str, ...]]],
    link: Sequence[str], library: Path,
) -> Path:  # fmt: skip
    folder = library.parent
    environment = dict(os.environ)
    if "ziglang" in command:  # else it writes to the home folder, which may not be there
        environment["ZIG_GLOBAL_CACHE_DIR"] = str(folder / "cache")
        environment["ZIG_LOCAL_CACHE_DIR"] = str(folder / "cache")

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise CompilerError(f"{command[0]} cannot build our kernels:\n{done.stderr.strip()}")

    def compiled(file: tuple[Path, tuple[str, ...]]) -> str:
        path, flags = file
        result = folder / f"{path.stem}.o"
        run(*FLAGS, *flags, "-c", str(path), "-o", str(result))
        return str(result)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(compiled, files))
    run("-shared", *link, *objects, "-o", str(library))
    return library


def _digest(root: Path, machine: str) -> str:
    """Of all that the library depends on but the compiler."""
    found = hashlib.sha256(repr((FLAGS, INSTRUCTION_SETS, machine)).encode())
    for path in sorted((root / SOURCES).glob("*.[ch]")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    print(provide(Path(__file__).parent.parent))

"""Looks at the shared libraries in a wheel: for which processor they are, what they lean on, whose
code is in them. Needs pyelftools and macholib (dependency group ``wheels``).

auditwheel judges what a Linux library asks of the system; nothing on Linux does it for macOS.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from elftools.elf.elffile import ELFFile
from macholib.MachO import MachO
from macholib.SymbolTable import SymbolTable

#: Whose code a symbol is, by how its name begins; each is a heading in the notices.
OWNERS: tuple[tuple[str, str], ...] = (
    (r"pk_", "Penstock"),
    (r"xnn_", "XNNPACK"),
    (r"pthreadpool_", "pthreadpool"),
    (r"cpuinfo_", "cpuinfo"),
    (r"kai_", "KleidiAI"),
    (r"_Z\w*?11flatbuffers", "FlatBuffers"),
    (r"_Z\w*?(10executorch|5torch8executor|20executorch_flatbuffer|10fb_xnnpack)", "ExecuTorch"),
    (r"(executorch_|et_pal_)", "ExecuTorch"),
    (r"_Z\w*?(7xnnpack|9copy_bias)", "XNNPACK"),
)
#: What systems bring: C++'s library, whose templates leave symbols, and the linker's own.
_SYSTEM = re.compile(
    r"_Z(N?K?St|NK?9__gnu_cxx|T[ISV]N?St|Zw?N?St|Gv|d[la]|n[wa])|_(init|fini|edata|end)$|__\w+"
)
#: Functions of C without a prefix belong to the project whose library they are in.
_BY_LIBRARY = {
    "executorch": "ExecuTorch", "executorch_threadpool": "pthreadpool",
    "executorch_backend_xnnpack": "XNNPACK", "penstock_native": "Penstock",
}  # fmt: skip
#: The newest macOS that a library may ask for, as in the wheel's tag.
_MACOS = (14, 0)
_NOTICES = "penstock/runtime/engines/xnnpack/NOTICES.txt"


@dataclass(frozen=True)
class Library:
    """What a library says of itself."""

    machine: str
    exported: frozenset[str]
    imported: frozenset[str]
    needed: tuple[str, ...]
    #: macOS alone: the oldest that runs it, and whether it is signed (arm64 demands it)
    macos: tuple[int, int] | None = None
    signed: bool = True


def read(data: bytes) -> Library:
    """The library whose bytes are ``data``, ELF or Mach-O. Raises ValueError for others."""
    if data[:4] == b"\x7fELF":
        return _elf(ELFFile(io.BytesIO(data)))
    if data[:4] == b"\xcf\xfa\xed\xfe":
        return _macho(data)
    raise ValueError("neither an ELF nor a Mach-O library")


def owners(stem: str, library: Library) -> set[str]:
    """The projects whose symbols a library exports."""
    return {_owner(stem, name) for name in library.exported if not _SYSTEM.match(name)}


def _owner(stem: str, name: str) -> str:
    for pattern, owner in OWNERS:
        if re.match(pattern, name):
            return owner
    return f"unknown ({name})" if name.startswith("_Z") else _BY_LIBRARY[stem]


def problems(files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with the libraries of a wheel, given all its files by name."""
    (tag,) = re.findall(r"^Tag: (\S+)$", _metadata(files, "WHEEL"), re.MULTILINE)
    machine = tag.rpartition("_")[2] if not tag.endswith("x86_64") else "x86_64"
    libraries = {n: read(data) for n, data in files.items() if n.endswith((".so", ".dylib"))}
    headings = set(re.findall(r"^(.+)\n=+$", files[_NOTICES].decode(), re.MULTILINE))
    found = [] if len(libraries) == 4 else [f"{len(libraries)} libraries, not 4"]
    beside = {PurePosixPath(name).name for name in libraries}
    for name, library in libraries.items():
        stem = PurePosixPath(name).stem.removeprefix("lib")
        if library.machine != machine:
            found.append(f"{name} is for {library.machine}, not {machine}")
        found += [f"{name} needs Python" for s in library.imported if s.startswith("Py")]
        for owner in sorted(owners(stem, library) - headings - {"Penstock"}):
            found.append(f"{name} has code of {owner}, which {_NOTICES} does not name")
        if library.macos is not None:
            if library.macos > _MACOS:
                found.append(f"{name} needs macOS {library.macos}")
            if not library.signed:
                found.append(f"{name} is not signed, which macOS on arm64 demands")
            for other in library.needed:
                if not other.startswith("/usr/lib/") and PurePosixPath(other).name not in beside:
                    found.append(f"{name} needs {other}, which is not in the wheel")
    return found


def _metadata(files: Mapping[str, bytes], name: str) -> str:
    (found,) = (data for path, data in files.items() if path.endswith(f".dist-info/{name}"))
    return found.decode()


def _elf(file: ELFFile) -> Library:
    machine = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}[file["e_machine"]]
    symbols = list(file.get_section_by_name(".dynsym").iter_symbols())
    needed = [
        tag.needed
        for tag in file.get_section_by_name(".dynamic").iter_tags()
        if tag.entry.d_tag == "DT_NEEDED"
    ]
    undefined = {s.name for s in symbols if s.entry.st_shndx == "SHN_UNDEF"}
    return Library(
        machine, frozenset({s.name for s in symbols} - undefined - {""}), frozenset(undefined),
        tuple(needed),
    )  # fmt: skip


def _macho(data: bytes) -> Library:
    with tempfile.TemporaryDirectory() as folder:  # macholib reads files alone
        path = Path(folder) / "library"
        path.write_bytes(data)
        file = MachO(str(path))
        (header,) = file.headers
        table = SymbolTable(file)
    macos, signed, needed = None, False, []
    for load, command, rest in header.commands:
        kind = load.get_cmd_name()
        if kind == "LC_BUILD_VERSION":
            macos = (int(command.minos) >> 16, int(command.minos) >> 8 & 0xFF)
        elif kind == "LC_LOAD_DYLIB":
            needed.append(rest.rstrip(b"\0").decode())
        signed |= kind == "LC_CODE_SIGNATURE"
    exported = frozenset(_plain(name) for _, name in table.extdefsyms)
    imported = frozenset(_plain(name) for _, name in table.undefsyms)
    machine = {0x0100000C: "arm64"}.get(header.header.cputype, "another processor")
    return Library(machine, exported, imported, tuple(needed), macos, signed)


def _plain(name: bytes) -> str:
    """Mach-O puts an underscore before every name of C."""
    return name.decode().removeprefix("_")

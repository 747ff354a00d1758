"""Paths that are no files, files that are no data, numbers that make no sense: one line each."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from children import environment
from cli_harness import Shell

import penstock
from penstock.cli import feeds
from penstock.cli.calibration import calibration_data
from penstock.cli.sources import Source
from penstock.errors import InputError


@pytest.fixture
def program(shell: Shell) -> Path:
    path = shell.folder / "net.pte"
    penstock.lower(torch.nn.Conv2d(3, 2, 3).eval(), (torch.randn(1, 3, 8, 8),)).save(path)
    return path


@pytest.fixture
def places(shell: Shell) -> dict[str, str]:
    """Names that open as something else than files, or not at all."""
    (shell.folder / "folder.pte").mkdir()
    os.mkfifo(shell.folder / "pipe.pte")
    (shell.folder / "loop.pte").symlink_to("loop.pte")
    return {
        "folder": "folder.pte", "pipe": "pipe.pte", "zeros": "/dev/zero", "null": "/dev/null",
        "loop": "loop.pte", "long": "a" * 5000, "deep": "a/" * 3000 + "a.pte", "none": "none.pte",
        "through a file": "net.pte/net.pte",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["folder", "pipe", "zeros", "null", "loop", "long", "deep", "none", "through a file"],
)
def test_what_is_no_file(shell: Shell, program: Path, places: dict[str, str], kind: str) -> None:
    """None of them is waited for, nor read without an end."""
    path = places[kind]
    for arguments in (
        ("run", path), ("inspect", path), ("profile", path), ("generate", path, "Hi"),
        ("run", str(program), "--inputs", path), ("run", str(program), "--labels", path),
        ("run", str(program), "--data-path", path),
        ("inspect", str(program), "--html", "page.html", "--profile", path),
    ):  # fmt: skip
        shell.fails("penstock", *arguments, message="")
        assert "fault of Penstock" not in shell.call("penstock", *arguments).stderr


@pytest.mark.parametrize("path", ["none/net.npz", "net.pte/x.npz", "a" * 5000, "/proc/x.npz"])
def test_what_cannot_be_written(shell: Shell, program: Path, path: str) -> None:
    shell.fails("penstock", "run", str(program), "--output-file", path, message="cannot write")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_is_full(program: Path) -> None:
    command = [sys.executable, "-m", "penstock", "run", str(program)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("name", ["out.npz", "out.npy", "out"])
def test_files_that_do_not_fit(program: Path, tmp_path: Path, name: str) -> None:
    """Whatever writes them, the error says why, and nothing is left."""

    def smallest_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    done = subprocess.run(
        [sys.executable, "-m", "penstock", "run", str(program), "--output", str(tmp_path / name)],
        capture_output=True, text=True, env=environment(PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=smallest_files, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "File too large; choose another place" in done.stderr
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(shell: Shell, program: Path) -> None:
    program.chmod(0)
    shell.fails("penstock", "run", str(program), message="Permission denied")


@pytest.mark.parametrize("count", ["0", "-1", "1025", str(10**9), str(10**30)])
def test_absurd_threads(shell: Shell, program: Path, count: str) -> None:
    message = "from 1 to 1024"
    for command in ("run", "profile", "bench"):
        shell.fails("penstock", command, str(program), "--threads", count, message=message)


class Harm:
    """What would leave a file behind if it were unpickled."""

    def __reduce__(self) -> object:
        return os.mkdir, ("harm",)


def test_pickles_are_never_read(shell: Shell, program: Path) -> None:
    raw = pickle.dumps(Harm())
    Path("pickle.npy").write_bytes(raw)
    Path("pickle.npz").write_bytes(raw)
    objects = np.array([Harm()], dtype=object)
    np.save("objects.npy", objects, allow_pickle=True)
    np.savez("objects.npz", objects)
    Path("samples").mkdir()
    source = Source("net", torch.nn.Identity(), (torch.zeros(2, 3),), {}, "static")
    for name in ("pickle.npy", "pickle.npz", "objects.npy", "objects.npz"):
        shell.fails("penstock", "run", str(program), "--inputs", name, message="not a NumPy file")
        sample = Path("samples") / name
        Path(name).rename(sample)
        with pytest.raises(InputError, match="not a NumPy file"):
            list(calibration_data("samples", source, 1) or ())
        sample.unlink()
    assert not Path("harm").exists()


def test_archives_that_unpack_to_more_than_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, np.zeros(1 << 20))
    assert path.stat().st_size < 20_000
    assert len(feeds.read_arrays(path)) == 1
    monkeypatch.setattr(feeds, "available_memory", lambda: 1 << 20)
    with pytest.raises(InputError, match="unpacks to 8 MiB, and 1 are free"):
        feeds.read_arrays(path)


def test_arrays_that_are_none(tmp_path: Path) -> None:
    huge = tmp_path / "huge.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117)
    huge.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header + b"\n")
    text = tmp_path / "text.npz"
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("notes.txt", "no array")
    for path in (huge, text):
        with pytest.raises(InputError, match="not a NumPy file"):
            feeds.read_arrays(path)


def picture(width: int, height: int) -> bytes:
    """The beginning of a PNG file of that size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        content = name + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (picture(100_000, 100_000), "exceeds limit"),
        (picture(12_000, 10_000), "cannot read the image"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "no such format",
        ),
        (b"", "no such format"),
    ],
)
def test_pictures_that_are_none(shell: Shell, program: Path, content: bytes, message: str) -> None:
    """PostScript would be run by another program; of too many pixels nothing warns besides."""
    pytest.importorskip("PIL")
    Path("a.png").write_bytes(content)
    shell.fails("penstock", "run", str(program), "--inputs", "a.png", message=message)
    assert shell.call("penstock", "run", str(program), "--inputs", "a.png").stderr.count("\n") == 1


def test_labels_of_any_size(shell: Shell, program: Path) -> None:
    with Path("labels.txt").open("wb") as file:
        file.truncate(1 << 40)
    message = "too large to be a file of labels"
    shell.fails("penstock", "run", str(program), "--labels", "labels.txt", message=message)

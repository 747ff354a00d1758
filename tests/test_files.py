"""Writing: the old file or the new one, whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from children import environment

from penstock.errors import InputError
from penstock.files import write_file

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SIZE = 1 << 20


def save(path: Path, content: bytes) -> None:
    write_file(path, lambda file: file.writelines([content[: SIZE // 2], content[SIZE // 2 :]]))


def test_killed_at_any_point(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    contents = [bytes([letter]) * SIZE for letter in b"ab"]
    write_file(path, lambda file: file.write(contents[0]))
    generator = random.Random(0)
    for _ in range(200):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    for content in contents:
                        save(path, content)
            finally:
                os._exit(1)
        time.sleep(generator.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert path.read_bytes() in contents
    for left in tmp_path.glob(".model.pte.*"):
        left.unlink()


FULL = """
import resource, sys
from pathlib import Path
import penstock
from penstock.files import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    write_file(Path(sys.argv[1]), lambda file: file.writelines([bytes(1 << 15)] * 4))
except penstock.InputError as error:
    print(error)
"""


def test_no_room(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: both end a write half-way."""
    path = tmp_path / "model.pte"
    path.write_bytes(b"before")
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], env=environment(), capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == f"cannot write the file {path}: File too large; choose another place\n"
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


DISK = """
import subprocess, sys
from pathlib import Path
import penstock
from penstock.files import write_file
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
path = folder / "model.pte"
write_file(path, lambda file: file.write(b"before"))
try:
    write_file(path, lambda file: file.writelines([bytes(1 << 15)] * 16))
except penstock.InputError as error:
    print(error)
assert path.read_bytes() == b"before" and list(folder.iterdir()) == [path]
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """A small disk of its own, in a namespace of mounts that ends with the process."""
    alone = ["unshare", "--mount", "--map-root-user"]
    try:
        able = subprocess.run([*alone, "mount", "-t", "tmpfs", "tmpfs", tmp_path]).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("no disk can be mounted here")
    done = subprocess.run(
        [*alone, sys.executable, "-c", DISK, tmp_path], env=environment(), capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = (
        f"cannot write the file {tmp_path}/model.pte: No space left on device; choose another place"
    )
    assert done.stdout == f"{said}\n"


def test_no_such_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory; choose another place"):
        write_file(tmp_path / "nowhere" / "model.pte", lambda file: file.write(b""))


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    """A link was replaced: ``/dev/stdout`` too, where the output goes to a file."""
    target, link = tmp_path / "there" / "model.pte", tmp_path / "link.pte"
    target.parent.mkdir()
    link.symlink_to(target)
    write_file(link, lambda file: file.write(b"first"))  # the target is yet to be
    target.chmod(0o600)
    write_file(link, lambda file: file.write(b"second"))
    assert link.is_symlink() and target.read_bytes() == b"second"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [*target.parent.iterdir()] == [target]
    if not Path("/proc/self/fd").exists():
        return
    code = (
        "import sys; from penstock.files import write_file;"
        "write_file(sys.argv[1], lambda file: file.write(b'third'))"
    )
    link.unlink()
    link.symlink_to("/proc/self/fd/1")
    with target.open("rb+") as output:
        subprocess.run(
            [sys.executable, "-c", code, link], env=environment(), stdout=output, check=True
        )
    assert link.is_symlink() and target.read_bytes() == b"third"


@pytest.mark.parametrize("path", [None, 5, "a\0b", b"model.pte"])
def test_no_path(path: Any) -> None:
    with pytest.raises(InputError, match="cannot be written to .*, which is no path; give one"):
        write_file(path, lambda file: file.write(b""))

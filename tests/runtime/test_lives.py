"""Files that change under a program, and long lives: memory, threads and file handles stay."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from children import environment

from penstock.runtime.program import ENGINES, LoadedProgram, load

STOCK = Path(__file__).parents[1] / "formats" / "stock"


def answers(program: LoadedProgram) -> np.ndarray:
    inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
    return program.method().run(inputs)[0]


def test_a_file_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    shutil.copy(STOCK / "image_fp32.pte", path)
    program = load(path, threads=1)
    expected = answers(program)
    shutil.copy(STOCK / "image_q8.pte", tmp_path / "new.pte")
    os.replace(tmp_path / "new.pte", path)
    np.testing.assert_array_equal(answers(program), expected)
    assert not np.array_equal(answers(load(path, threads=1)), expected)


@pytest.mark.parametrize("name", ["image_q8", "image_fp32", "external/kernels"])
def test_copies_do_not_need_the_file(name: str, tmp_path: Path) -> None:
    sources = [STOCK / f"{name}.pte", *STOCK.glob(f"{name}.ptd")]
    files = [Path(shutil.copy(source, tmp_path)) for source in sources]
    expected = answers(load(files[0], data=files[1:], threads=1))
    program = load(files[0], data=files[1:], threads=1, copy=True)
    again = pickle.dumps(program)
    for file in files:
        os.truncate(file, 16)
    np.testing.assert_array_equal(answers(program), expected)
    np.testing.assert_array_equal(answers(program.clone()), expected)
    for source, file in zip(sources, files, strict=True):
        shutil.copy(source, file)
    restored = pickle.loads(again)
    assert restored._options.copy
    np.testing.assert_array_equal(answers(restored), expected)


def resources() -> tuple[int, int, int]:
    """Resident bytes, threads, open files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads = len(os.listdir("/proc/self/task"))
    return pages * os.sysconf("SC_PAGE_SIZE"), threads, len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("engine", ENGINES)
def test_loading_again_and_again_leaves_nothing_behind(engine: str) -> None:
    def cycle(times: int) -> None:
        for _ in range(times):
            program = load(STOCK / "image_fp32.pte", threads=2, engine=engine)
            answers(program)
            answers(program.clone(threads=1))
            del program

    cycle(30)
    before = resources()
    cycle(150)
    after = resources()
    assert after[1:] == before[1:]
    assert after[0] - before[0] < 4 << 20  # the pages of 150 programs would be 20 times that


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_calls_leave_nothing_behind() -> None:
    program = load(STOCK / "nested.pte", threads=1)
    inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
    for _ in range(500):
        program.method().run(inputs)
    before = resources()
    for _ in range(5000):
        program.method().run(inputs)
    after = resources()
    assert after[1:] == before[1:] and after[0] - before[0] < 1 << 20


FORKED = """
import os, sys
import numpy as np
import penstock

program = penstock.load(sys.argv[1], threads=int(sys.argv[2]))
inputs = [np.ones(spec.shape, spec.dtype) for spec in program.method().inputs]
expected = program.method().run(inputs)[0]
child = os.fork()
if child == 0:
    try:
        same = np.array_equal(program.method().run(inputs)[0], expected)
    except penstock.BackendUnavailableError as error:
        assert "load the program again" in str(error)
        again = penstock.load(sys.argv[1], threads=2)
        same = np.array_equal(again.method().run(inputs)[0], expected)
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(program.method().run(inputs)[0], expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_fork(threads: int) -> None:
    command = [sys.executable, "-c", FORKED, STOCK / "image_fp32.pte", str(threads)]
    subprocess.run(command, env=environment(), check=True, timeout=120)


FORKED_WITHIN_CALLS = """
import os, sys, threading
import numpy as np
import penstock

program = penstock.load(sys.argv[1], threads=1)
method = program.method()
inputs = [np.ones(spec.shape, spec.dtype) for spec in method.inputs]
expected = method.run(inputs)[0]
pool = penstock.Pool(penstock.load(sys.argv[1]), 2)
taken, done = threading.Barrier(3), threading.Event()

def call():
    with method._turns.lock:  # as in the middle of a call
        taken.wait()
        done.wait()

def lend():
    with pool.lent(), pool.lent():
        taken.wait()
        done.wait()

threads = [threading.Thread(target=one) for one in (call, lend)]
for thread in threads:
    thread.start()
taken.wait()
child = os.fork()
if child == 0:
    told = []
    for one in (program, program.clone()):
        try:
            one(*inputs)
        except penstock.BackendUnavailableError as error:
            told.append("load the program again" in str(error))
    again = penstock.load(sys.argv[1], threads=1)(*inputs)
    same = [np.array_equal(found[0], expected) for found in (again, pool(*inputs))]
    os._exit(0 if told == [True, True] and all(same) else 1)
assert os.waitpid(child, 0)[1] == 0
done.set()
for thread in threads:
    thread.join()
assert np.array_equal(program(*inputs)[0], expected)
assert np.array_equal(pool(*inputs)[0], expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_while_other_threads_call() -> None:
    """Their calls never end in the child: nobody waits for them there."""
    command = [sys.executable, "-c", FORKED_WITHIN_CALLS, STOCK / "image_fp32.pte"]
    subprocess.run(command, env=environment(), check=True, timeout=120)


def test_an_interrupt_leaves_the_program_usable() -> None:
    """Ctrl-C while a call is in C is raised when it is back, and the next call is right."""
    import signal

    program = load(STOCK / "image_fp32.pte", threads=1)
    expected = answers(program)
    stop = threading.Event()
    armed = False

    def handler(number: int, frame: object) -> None:
        """Raises once for each time that the test is ready for it: never in pytest."""
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def interrupt() -> None:
        while not stop.wait(0.002):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    interrupts = 0
    before = signal.signal(signal.SIGINT, handler)
    thread.start()
    try:
        while interrupts < 20:
            try:
                armed = True
                while armed:  # no longer where one was raised in a finalizer, which drops it
                    answers(program)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        armed = False
        stop.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    np.testing.assert_array_equal(answers(program), expected)


INTERRUPTED = """
import signal, sys
import penstock
from penstock.runtime.engines import weight_blocks

large = weight_blocks.large

def interrupted(size):
    signal.raise_signal(signal.SIGINT)
    return large(size)

signal.signal(signal.SIGINT, signal.default_int_handler)
program = penstock.load(sys.argv[1], threads=1, engine="xnnpack")
penstock.load(sys.argv[1], threads=1, engine="xnnpack").method()  # the library's self-test is over
weight_blocks.large = interrupted
try:
    program.method()
except KeyboardInterrupt:
    weight_blocks.large = large
    program.method()
    print("interrupted, and well again")
"""


def test_an_interrupt_while_weights_are_packed_is_not_lost() -> None:
    command = [sys.executable, "-c", INTERRUPTED, STOCK / "image_fp32.pte"]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("interrupted, and well again\n", "")


CALLED_BACK = """
import signal, sys
import numpy as np
import penstock
from penstock.cli.feeds import ones
from penstock.runtime.engines.xnnpack import packing

calls = 0

def profile(frame, event, argument):
    global calls
    if event == "call" and frame.f_code.co_filename == packing.__file__:
        calls += 1
        if calls == 1:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
method = penstock.load(sys.argv[1], threads=1, engine="xnnpack").method()
inputs = ones(method.inputs)
sys.setprofile(profile)
try:
    method.run(inputs)
except KeyboardInterrupt:
    print("interrupted")
assert calls > 1
expected = method.run(inputs)[0]
before = calls
again = method.run([array.copy() for array in inputs])[0]
sys.setprofile(None)
assert calls == before and np.array_equal(again, expected)
"""


def test_an_interrupt_while_xnnpack_asks_for_packed_weights_is_not_lost() -> None:
    """A call at shapes that are new asks Python where they are; a later one asks nothing."""
    command = [sys.executable, "-c", CALLED_BACK, STOCK / "image_fp32.pte"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")

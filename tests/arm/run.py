"""The aarch64 wheel at work in an arm64 Debian, emulated: ``make test-arm``.

Makes the root, installs the wheel and what runs there, then: the tests that need no torch, files
compiled on this machine beside this machine's answers, SmolLM2's sentence, and the self-test on a
processor that the emulator gets wrong. Writes the tables of ``docs/platforms.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agreement import Agreement, agreement, node_table, single_nodes, table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from torch_free import torch_free_tests  # noqa: E402

WORK = Path(os.environ.get("PENSTOCK_ARM_ROOT", "/var/tmp/penstock-arm64"))
DEBIAN = WORK / "root"
BUILD = ROOT / "build" / "arm"
PAGE = ROOT / "docs" / "platforms.md"
#: A processor with int8 dot products, without matrix instructions: a phone's of 2018.
PROCESSOR = "cortex-a76"
#: As in Debian 12.
PYTHON = "3.11"
PACKAGES = (
    "numpy>=2,<3",
    "pytest>=8",
    "hypothesis>=6.100",
    "tokenizers>=0.21,<0.24",
    "jinja2>=3.1",
)
MODELS = ("mv2", "mv3", "efficientnet_lite0", "resnet18", "minilm", "swin_t")
#: Folders whose tests are about programs, payloads and what runs them.
ROOMS = ("formats", "graph", "kernels", "llm", "runtime")
#: Times say nothing in an emulator, nor does the memory of a process, which holds the translated
#: code; /proc/cpuinfo is the host's; two want the package in its place.
LEFT_OUT = (
    "test_the_overhead_of_a_call_is_small", "test_both_self_tests_are_short",
    "test_loading_is_quick_and_imports_neither_torch_nor_executorch",
    "test_a_call_costs_little", "test_loading_again_and_again_leaves_nothing_behind",
    "test_detection_agrees_with_the_system", "test_a_missing_library_is_reported_once_and_clearly",
)  # fmt: skip
STEPS = ("nodes", "models", "chat", "wrong", "kernels", "tests")
#: The tests of our own kernels run on these as well, at each of their instruction sets; without
#: dot products XNNPACK has other kernels.
KERNELS = {
    "max,sme=off": "test_*.py",
    "cortex-a72": "test_[is]*.py",
}
PROMPT = "The capital of France is"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=MODELS, help="those of the zoo to run")
    parser.add_argument("--processor", default=PROCESSOR, help="QEMU_CPU")
    parser.add_argument("--only", nargs="*", choices=STEPS, default=STEPS, help="these steps alone")
    options = parser.parse_args()
    os.environ["QEMU_CPU"] = options.processor
    host("sh", str(Path(__file__).parent / "root.sh"), str(DEBIAN), str(WORK / "debs"))
    install()
    steps = {
        "nodes": run_nodes, "models": lambda: run_models(options.models), "chat": chat,
        "wrong": refuse, "kernels": run_kernels, "tests": run_tests,
    }  # fmt: skip
    for name in options.only:
        steps[name]()


def host(*command: str) -> str:
    """Run a command here; returns what it says. Ends with its error where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        sys.exit(f"error: {' '.join(command[:6])}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def arm(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the arm64 root, in the folder ``/work``."""
    given = {"PYTHONPATH": "/opt/penstock", "OMP_NUM_THREADS": "1", "HOME": "/root", **variables}
    words = [f"{name}={value}" for name, value in given.items()]
    return subprocess.run(
        ["chroot", str(DEBIAN), "env", "-C", "/work", *words, *command],
        capture_output=True, text=True,
    )  # fmt: skip


def install() -> None:
    """The wheel and what it needs, by this machine's pip; the tests beside them."""
    (wheel,) = (BUILD / "dist").glob("*manylinux*_aarch64.whl")
    packages, work = DEBIAN / "opt" / "penstock", DEBIAN / "work"
    shutil.rmtree(packages, ignore_errors=True)
    shutil.rmtree(work / "tests", ignore_errors=True)
    tags = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64",
            "manylinux2014_aarch64")  # fmt: skip
    platforms = [word for tag in tags for word in ("--platform", tag)]
    host(
        sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), *platforms,
        "--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:",
        str(wheel), *PACKAGES,
    )  # fmt: skip
    shutil.copytree(ROOT / "tests", work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "native", "build_backend"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        shutil.rmtree(work / name, ignore_errors=True)
        copy(source, work / name)  # type: ignore[operator]


def run_tests() -> None:
    """Those that need no torch."""
    names = [str(path.relative_to(ROOT)) for path in torch_free_tests(ROOMS)]
    summary = tested("tests", names)
    write("tests", f"`{len(names)}` files of tests that need no torch: {summary}.")


def run_kernels() -> None:
    """Those of our own kernels, on other processors."""
    lines = []
    for processor, pattern in KERNELS.items():
        folder = Path("tests/runtime/engines/native")
        names = [
            path.relative_to(ROOT)
            for path in torch_free_tests(ROOMS)
            if path.parent == ROOT / folder and path.match(pattern)
        ]
        summary = tested(f"kernels-{processor}", list(map(str, names)), QEMU_CPU=processor)
        lines.append(f"- `QEMU_CPU={processor}`, {len(names)} files: {summary}.")
    write("kernels", "\n".join(lines))


def tested(name: str, files: Sequence[str], **variables: str) -> str:
    """What pytest says of test files in a line. Ends where a test fails."""
    # The package is the installed one: /work has none.
    done = arm("python3", "-m", "pytest", "-p", "no:cacheprovider", "-rfEs",
               "-k", " and ".join(f"not {test}" for test in LEFT_OUT), *files,
               **variables)  # fmt: skip
    log = BUILD / f"{name}.txt"
    log.write_text(done.stdout + done.stderr)
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-500:]
    print(f"{name}: {summary}")
    if done.returncode:
        sys.exit(f"error: tests failed; see {log}")
    return summary.strip("= ")


def run_nodes() -> None:
    """Single nodes, on both machines."""
    here, there = BUILD / "here" / "nodes.npz", BUILD / "there" / "nodes.npz"
    for path in (here, there):
        path.parent.mkdir(parents=True, exist_ok=True)
    host(sys.executable, str(Path(__file__).parent / "nodes.py"), str(here))
    done = arm("python3", "tests/arm/nodes.py", "nodes.npz")
    if done.returncode:
        sys.exit(f"error: nodes: {done.stderr[-3000:]}")
    shutil.move(DEBIAN / "work" / "nodes.npz", there)
    write("nodes", single_nodes(here, there))


def run_models(models: Sequence[str]) -> None:
    """Files compiled here, run on both machines."""
    folder = BUILD / "models"
    rows: list[Agreement] = []
    for model in models:
        for kind, flags in (("fp32", ()), ("q8", ("--quantize",))):
            file = folder / f"{model}_xnnpack_{kind}.pte"
            if not file.is_file():
                host(sys.executable, "-m", "penstock.cli.main", "compile", model, *flags,
                     "--output-dir", str(folder))  # fmt: skip
            here = BUILD / "here" / f"{file.stem}.npz"
            there = BUILD / "there" / f"{file.stem}.npz"
            answers = Path(__file__).parent / "answers.py"
            host(sys.executable, str(answers), str(here.parent), str(file))
            shutil.copyfile(file, DEBIAN / "work" / file.name)
            done = arm("python3", "tests/arm/answers.py", "there", file.name)
            if done.returncode:
                sys.exit(f"error: {file.name}: {done.stderr[-3000:]}")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(DEBIAN / "work" / "there" / there.name, there)
            (DEBIAN / "work" / file.name).unlink()
            rows.append(agreement(f"{model} {kind}", here, there))
            print(rows[-1], flush=True)
            (BUILD / f"{file.stem}.nodes.txt").write_text(node_table(here, there))
    write("models", table(rows))
    wrong = [row.name for row in rows if not row.kept]
    if wrong:
        sys.exit(f"error: less agreement than promised: {', '.join(wrong)}")


def chat() -> None:
    """SmolLM2's answer, and this machine's."""
    folder = BUILD / "models"
    file = folder / "smollm2_4bit.pte"
    if not file.is_file():
        host(sys.executable, "-m", "penstock.cli.main", "compile", "smollm2", "--output-dir",
             str(folder))  # fmt: skip
    for path in folder.glob("smollm2_4bit.*"):
        shutil.copyfile(path, DEBIAN / "work" / path.name)
    command = ("-m", "penstock.cli.main", "generate", "smollm2_4bit.pte", PROMPT,
               "--max-tokens", "12", "--temperature", "0", "--quiet")  # fmt: skip
    there = arm("python3", *command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    here = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=folder,
                          env=environment)  # fmt: skip
    print(f"here:  {here.stdout.strip()!r}\nthere: {there.stdout.strip()!r}")
    if there.returncode or not there.stdout.strip():
        sys.exit(f"error: SmolLM2: {there.stderr[-2000:]}")
    same = "the same" if here.stdout == there.stdout else f"here it is {here.stdout.strip()!r}"
    write(
        "chat",
        f"SmolLM2, 4 bits, goes on from {PROMPT!r}: {there.stdout.strip()!r}; {same} on x86-64.",
    )


def refuse() -> None:
    """The emulator's fullest processor computes SME's int8 sums wrongly in QEMU 7.2: either the
    answers are right there, or Penstock refuses."""
    code = "from penstock.runtime.engines.xnnpack.engine import shared_library; shared_library()"
    done = arm("python3", "-c", code, QEMU_CPU="max")
    said = done.stderr.strip().splitlines()[-1] if done.returncode else "all families are right"
    print(f"QEMU_CPU=max: {said}")
    if done.returncode and "computes wrongly on this processor" not in said:
        sys.exit(f"error: {done.stderr[-2000:]}")
    short = re.sub(r"/\S*/(?=lib\w+\.so)", ".../", said)
    write("wrong", f"```text\n{short}\n```")


def write(block: str, text: str) -> None:
    """Put ``text`` between the marks of a block of the page."""
    if PAGE.is_file():
        page = PAGE.read_text()
        form = rf"(<!-- {block} -->\n)(?:.*?\n)??(<!-- end -->)"
        PAGE.write_text(re.sub(form, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL))


if __name__ == "__main__":
    BUILD.mkdir(parents=True, exist_ok=True)
    main()

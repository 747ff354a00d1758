"""``penstock compile`` and the example commands, as a user calls them."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from cli_harness import Shell

import penstock


def test_a_model_of_the_zoo(shell: Shell) -> None:
    result = shell.compiled("add_mul", "--test")
    assert result["pieces"] == 1 and result["share_delegated"] == 1.0
    (agreement,) = result["agreement"]
    assert agreement["sqnr_db"] > 100
    assert result["bytes"] == (shell.folder / "add_mul_xnnpack_fp32.pte").stat().st_size


def test_quantized_and_for_the_kernels_alone(shell: Shell) -> None:
    result = shell.compiled("linear", "-q", "--no-delegate", "-o", "made/here", "--test")
    assert result["path"] == "made/here/linear_quantized.pte"
    assert result["pieces"] == 0 and result["quantization"] == "static_per_channel"
    assert result["agreement"][0]["sqnr_db"] > 20


def test_the_users_own_module(shell: Shell) -> None:
    shell.compiled("mymodels:with_keywords", "--output", "own.pte")
    mymodels = importlib.import_module("mymodels")
    model, args, kwargs = mymodels.with_keywords()
    with torch.no_grad():
        expected = model(*args, **kwargs)
    got = penstock.load(shell.folder / "own.pte")(*args, **kwargs)
    assert set(got) == {"logits", "features"} and isinstance(got["features"], tuple)
    np.testing.assert_allclose(got["logits"], expected["logits"].numpy(), atol=1e-5)


def test_the_users_own_calibration(shell: Shell) -> None:
    data = shell.folder / "samples"
    data.mkdir()
    for index in range(3):
        np.savez(data / f"{index}.npz", image=np.random.rand(1, 3, 8, 8).astype(np.float32))
    for given in ([], ["--calibration", "mymodels:batches"], ["--calibration", "samples"]):
        result = shell.compiled("mymodels:described", "-q", "--test", *given)
        assert result["agreement"][0]["sqnr_db"] > 15


def test_dynamic_shapes(shell: Shell) -> None:
    option = "--dynamic-shapes", "input:0=batch[1..8]"
    shell.compiled("mymodels:rows", *option, "--output", "rows.pte")
    program = penstock.load(shell.folder / "rows.pte")
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 2)
    for batch in (1, 5, 8):
        x = torch.randn(batch, 6)
        with torch.no_grad():
            np.testing.assert_allclose(program(x)[0], model(x).numpy(), atol=1e-5)
    with pytest.raises(penstock.InputError):
        program(torch.randn(9, 6))


def test_the_range_of_a_size_is_given_once(shell: Shell) -> None:
    options = "--dynamic-shapes", "first:0=n[1..8]", "--dynamic-shapes", "second:0=n"
    shell.compiled("mymodels:Pair@2x3x4,2x5x4", *options, "--output", "pair.pte")
    program = penstock.load(shell.folder / "pair.pte")
    x, y = torch.randn(7, 3, 4), torch.randn(7, 5, 4)
    np.testing.assert_allclose(program(x, y)[0], (x @ y.mT).numpy(), atol=1e-5)


@pytest.mark.parametrize("source", ["mymodels:Constant", "mymodels:without_inputs"])
@pytest.mark.parametrize("options", [(), ("-q", "--scheme", "dynamic")])
def test_a_model_without_inputs(shell: Shell, source: str, options: tuple[str, ...]) -> None:
    if options:
        shell.fails("penstock", "compile", source, *options, message="nothing")
        return
    shell.compiled(source, "--output", "c.pte", "--test")
    assert penstock.load(shell.folder / "c.pte")()[0].tolist() == [2.0, 2.0, 2.0]


def test_shapes_behind_the_name(shell: Shell) -> None:
    """A class of a library, by its module or by its file, which may lie anywhere."""
    folder = shell.folder / "else where ü"
    folder.mkdir()
    (folder / "width.py").write_text("WIDTH = 6\n")
    (folder / "their model.py").write_text(
        "import torch\nfrom width import WIDTH\n\n"
        "class Model(torch.nn.Embedding):\n    def __init__(self): super().__init__(9, WIDTH)\n"
    )
    shell.compiled("else where ü/their model.py:Model@int64:1x5", "--output", "a.pte", "--test")
    program = penstock.load(shell.folder / "a.pte")
    assert program(np.ones((1, 5), np.int64))[0].shape == (1, 5, 6)
    result = shell.compiled("torch.nn:Tanh@2x3", "--test")
    assert result["path"] == "Tanh_xnnpack_fp32.pte"


@pytest.mark.skipif(find_spec("torchvision") is None, reason="it comes with the zoo")
def test_a_model_of_a_library(shell: Shell) -> None:
    """Also where torchvision is built for another torch, and a file imports it."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    (shell.folder / "own.py").write_text(
        "from torchvision.models import squeezenet1_1\n\ndef net(): return squeezenet1_1()\n"
    )
    result = shell.compiled("own.py:net@1x3x64x64", "--output", "net.pte")
    assert result["share_delegated"] == 1.0


@pytest.mark.skipif(find_spec("torchvision") is None, reason="it comes with the zoo")
def test_a_library_that_is_imported_late(shell: Shell) -> None:
    """As transformers does: when the model is made, with an error of its own."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    (shell.folder / "late.py").write_text(
        "def net():\n"
        "    try:\n        from torchvision.models import squeezenet1_1\n"
        "    except RuntimeError as error:\n        raise ModuleNotFoundError('no') from error\n"
        "    return squeezenet1_1()\n\n"
        "def fails():\n"
        "    try:\n        1 / 0\n"
        "    except ArithmeticError as error:\n        raise ImportError('no net') from error\n"
    )
    shell.compiled("late.py:net@1x3x64x64", "--output", "net.pte")
    message = "ImportError: no net (", ", because of ZeroDivisionError: division by zero ("
    for part in message:
        shell.fails("penstock", "compile", "late.py:fails@1", message=part)


def test_a_checkpoint_of_the_users_own_module(shell: Shell) -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(6, 2)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, shell.folder / "saved.pt")
    shell.compiled("mymodels:rows", "--weights", "saved.pt", "--output", "rows.pte", "--test")
    x = torch.randn(3, 6)
    with torch.no_grad():
        expected = model(x).numpy()
    got = penstock.load(shell.folder / "rows.pte")(x)[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_function_that_exports(shell: Shell) -> None:
    assert shell.compiled("mymodels.py:program", "--test")["agreement"][0]["sqnr_db"] > 100


def test_an_archive(shell: Shell) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    x = torch.randn(2, 4)
    torch.export.save(torch.export.export(model, (x,)), shell.folder / "saved.pt2")
    result = shell.compiled("saved.pt2", "--test")
    assert result["path"] == "saved_xnnpack_fp32.pte"
    assert result["agreement"][0]["sqnr_db"] > 100


def test_quiet_says_nothing(shell: Shell) -> None:
    done = shell.call("penstock", "compile", "add", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_stages_and_summary(shell: Shell) -> None:
    done = shell.call("penstock", "compile", "linear", "--print-graph")
    for stage in ("import torch", "model", "capture", "partition", "emit", "write"):
        assert f"✓ {stage} " in done.stderr
    assert "executorch_call_delegate" in done.stdout
    assert "100.0% of the graph in 1 piece" in done.stdout
    assert "random weights" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuchmodel"], "unknown model 'nosuchmodel'; the valid names are: add, add_mul"),
        (["mobilbert"], "unknown model 'mobilbert' (did you mean 'mobilebert'?)"),
        ([""], "unknown model ''; the valid names are"),
        (["mymodels:net", "--calibration", "samples"], "--calibration is for quantized models"),
        (
            ["mymodels:net", "--scheme", "dynamic_per_channel", "--calibration", "samples"],
            "--calibration is for static quantization: dynamic_per_channel reads none",
        ),
        (["nomodule:make"], "cannot import 'nomodule' of 'nomodule:make': there is no module"),
        (["nofile.py:make"], "there is no Python file nofile.py"),
        (["mymodels.py"], "say what in it gives the model, as package.module:callable"),
        (["own.pte"], "it is compiled already"),
        (["own.pth"], "it holds weights, not what is computed"),
        (["mymodels:nothing"], "'mymodels' has no 'nothing'"),
        (["mymodels:Nett"], "'mymodels' has no 'Nett' (did you mean 'Net'?)"),
        (["mymodels:needs"], "'mymodels:needs' needs arguments (config, width)"),
        (["mymodels:leaves"], "failed when it was called: SystemExit: 3 ("),
        (["mymodels:Net"], "its forward takes image: give (module, args), or their shapes"),
        (["mymodels:Net@1x3x"], "cannot read the inputs '1x3x'; write shapes"),
        (["mymodels:Net@int7:1x3"], "cannot read the inputs 'int7:1x3'"),
        (["mymodels:program@1"], "whose inputs are fixed"),
        (["mymodels:constant"], "is a int, not something that can be called"),
        (["mymodels:broken"], "failed when it was called: ValueError: no such luck"),
        (["mymodels:number"], "must give (module, args)"),
        (["absent.pt2"], "no archive absent.pt2"),
        (["mymodels.py.pt2"], "no archive"),
        (["mymodels:branching"], "torch.export cannot capture Branching"),
        (["mymodels:nothing_to_quantize", "-q"], "nothing"),
        (["mymodels:net", "-q", "--calibration", "mymodels:misfit"], "calibration"),
        (["mymodels:net", "-q", "--calibration", "nowhere"], "no calibration data at 'nowhere'"),
        (["linear", "--scheme", "int3"], "unknown quantization scheme 'int3'"),
        (["linear", "--weights", "nothing.pt"], "no checkpoint nothing.pt"),
        (["mymodels:net", "--weights", "default"], "--weights default is for models of the zoo"),
        (["mymodels:net", "--weights", "no.pt"], "there is no checkpoint no.pt"),
        (["mymodels:program", "--weights", "no.pt"], "an exported program with weights; leave"),
        (["linear", "-o", "/proc/nowhere"], "cannot write to the output directory /proc/nowhere"),
        (["linear", "-o", "mymodels.py"], "cannot write to the output directory mymodels.py"),
        (["mymodels:rows", "--dynamic-shapes", "x"], "cannot read the dynamic dimension 'x'"),
        (["mymodels:rows", "--dynamic-shapes", "y:0=n[1..2]"], "there is no input 'y'"),
        (["mymodels:rows", "--dynamic-shapes", "input:7=n[1..2]"], "there is no 7"),
        (["mymodels:rows", "--dynamic-shapes", "inpt:0=n[1..8]"], "did you mean 'input'?"),
        (["mymodels:rows", "--dynamic-shapes", "input:0=n"], "the range of 'n' is missing"),
        (["mymodels:rows", "--dynamic-shapes", "input:0=n[1..2]"], "has size 3 in dimension 0"),
    ],
)
def test_bad_requests(shell: Shell, arguments: list[str], message: str) -> None:
    shell.fails("penstock", "compile", *arguments, message=message)


def test_the_example_compiler(shell: Shell) -> None:
    example = "examples.xnnpack.aot_compiler"
    done = shell.call(example, "--model_name=add", "--delegate")
    assert done.returncode == 0 and "executorch_call_delegate" in done.stdout
    done = shell.call(example, "-m", "add", "-q", "-d", "-t", "-o", "made")
    assert done.returncode == 0 and "against eager" in done.stdout
    assert (shell.folder / "add_xnnpack_fp32.pte").exists()
    assert (shell.folder / "made" / "add_xnnpack_q8.pte").exists()
    assert "mobilebert" in shell.call(example, "-h").stdout
    done = shell.call(example, "-m", "mymodels.py:net", "-d", "-t")
    assert done.returncode == 0 and (shell.folder / "net_xnnpack_fp32.pte").exists()
    shell.fails(example, "-m", "nosuch", "-d", message="unknown model 'nosuch'; the valid")


def test_the_example_of_quantizing(shell: Shell) -> None:
    example = "examples.xnnpack.quantization.example"
    done = shell.call(example, "--model_name", "add")
    assert done.returncode == 0, done.stderr
    program = penstock.load(shell.folder / "add_quantized.pte")
    assert not program.backends(None)
    (answer,) = program(np.ones(1, np.float32), np.ones(1, np.float32))
    assert abs(float(answer[0]) - 2.0) < 0.05
    assert "mobilebert" in shell.call(example, "-h").stdout
    shell.fails(
        example, "-m", "add", "-s", "absent.so",
        message="cannot load the operator library 'absent.so'",
    )  # fmt: skip


def test_etrecord(shell: Shell) -> None:
    found = shell.compiled("linear", "--output", "l.pte", "--etrecord")
    assert found["etrecord"] == "l.etrecord" and (shell.folder / "l.etrecord").exists()
    found = shell.compiled("linear", "--output", "l.pte", "--etrecord", "sub/mine.etrecord")
    assert (shell.folder / "sub" / "mine.etrecord").read_bytes()[:2] == b"PK"
    assert shell.compiled("linear", "--output", "l.pte")["etrecord"] is None
    shell.fails(
        "penstock", "compile", "linear", "--etrecord", "/dev/null/x", "--quiet",
        message="give another one with --etrecord",
    )  # fmt: skip
    done = shell.call("examples.xnnpack.aot_compiler", "-m", "linear", "-d", "-r", "r.etrecord")
    assert done.returncode == 0 and (shell.folder / "r.etrecord").exists()

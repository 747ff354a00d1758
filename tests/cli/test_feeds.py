"""Input files of the runners: arrays, raw bytes, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.cli import feeds
from penstock.errors import InputError
from penstock.runtime.specs import ScalarSpec, TensorSpec

F32 = TensorSpec((2, 3), np.dtype("float32"))


def test_input_files(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "xs.npz", first=x, second=x + 1)
    x.tofile(tmp_path / "x.bin")
    name = {f: str(tmp_path / f) for f in ("x.npy", "xs.npz", "x.bin")}
    one, two, three = feeds.read_inputs([name["xs.npz"], name["x.bin"]], [F32] * 3)
    for got, wanted in ((one, x), (two, x + 1), (three, x)):
        np.testing.assert_array_equal(got, wanted)
    fixed = ScalarSpec("int", 3)
    assert feeds.read_inputs([name["x.npy"]], [fixed, F32])[0] == 3
    last = TensorSpec((1, 3, 1, 2), np.dtype("float32"), dim_order=(0, 2, 3, 1))
    (image,) = feeds.read_inputs([name["x.bin"]], [last])
    np.testing.assert_array_equal(image, x.reshape(1, 1, 2, 3).transpose(0, 3, 1, 2))
    for files in ([name["x.npy"]], [name["xs.npz"], name["x.npy"]]):
        with pytest.raises(InputError, match="takes 2: float32"):
            feeds.read_inputs(files, [F32, F32])
    (tmp_path / "bad.npz").write_bytes(b"PK but not really")
    with pytest.raises(InputError, match="bad.npz is not a NumPy file"):
        feeds.read_inputs([str(tmp_path / "bad.npz")], [F32])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(InputError, match="objects.npy is not a NumPy file"):
        feeds.read_inputs([str(tmp_path / "objects.npy")], [F32])


def test_one_preprocessing_for_runs_and_calibration(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    torch = pytest.importorskip("torch")
    from penstock.cli.calibration import calibration_data
    from penstock.cli.sources import Source

    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    source = Source("net", torch.nn.Identity(), (torch.zeros(2, 3, 8, 10),), {}, "static")
    ((calibrated,),) = calibration_data(str(tmp_path), source, 4) or ()
    spec = TensorSpec((2, 3, 8, 10), np.dtype("float32"))
    (run,) = feeds.read_inputs([str(tmp_path / "a.png")], [spec])
    np.testing.assert_array_equal(calibrated.numpy(), run)


def test_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "red.png"
    image.new("RGBA", (60, 40), (255, 0, 0, 255)).save(path)
    spec = TensorSpec((1, 3, 8, 10), np.dtype("float32"))
    (x,) = feeds.read_inputs([str(path)], [spec])
    assert x.shape == (1, 3, 8, 10) and x.dtype == np.float32
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(x[0, :, 3, 4], expected, rtol=1e-5)
    (raw,) = feeds.read_inputs([str(path)], [TensorSpec((3, 8, 8), np.dtype("uint8"))])
    np.testing.assert_array_equal(raw[:, 0, 0], [255, 0, 0])
    (grey,) = feeds.read_inputs([str(path)], [TensorSpec((2, 1, 8, 8), np.dtype("float32"))])
    np.testing.assert_allclose(grey, 76 / 255, rtol=1e-5)
    for wrong in (F32, TensorSpec((1, 3, 8, 8), np.dtype("int64"))):
        with pytest.raises(InputError, match="is an image, but the input"):
            feeds.read_inputs([str(path)], [wrong])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot read the image"):
        feeds.read_inputs([str(path)], [spec])


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_of_grey(tmp_path: Path, suffix: str) -> None:
    """They are the picture of eight bits, and not all white."""
    image = pytest.importorskip("PIL.Image")
    grey = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    image.fromarray(grey).save(tmp_path / f"8.{suffix}")
    image.fromarray(grey.astype(np.uint16) << 8 | 77).save(tmp_path / f"16.{suffix}")
    spec = TensorSpec((1, 3, 9, 12), np.dtype("float32"))
    eight, sixteen = (
        feeds.read_inputs([str(tmp_path / f"{bits}.{suffix}")], [spec])[0] for bits in (8, 16)
    )
    np.testing.assert_array_equal(eight, sixteen)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_that_do_not_say_what_is_white(tmp_path: Path, dtype: type) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "x.tiff")
    spec = TensorSpec((1, 3, 4, 4), np.dtype("float32"))
    with pytest.raises(InputError, match="x.tiff: its pixels are numbers of 32 bits"):
        feeds.read_inputs([str(tmp_path / "x.tiff")], [spec])


def test_strips_are_not_stretched_without_an_end(tmp_path: Path) -> None:
    """A file of two kilobytes would become 6,000 million pixels on the way."""
    image = pytest.importorskip("PIL.Image")
    image.new("L", (1, 1_000_000)).save(tmp_path / "strip.png")
    spec = TensorSpec((1, 1, 80, 80), np.dtype("float32"))
    with pytest.raises(InputError, match="strip.png: 1 x 1000000 pixels that cover 80 x 80"):
        feeds.read_inputs([str(tmp_path / "strip.png")], [spec])

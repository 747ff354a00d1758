"""The honest files that mutations start from: ``python -m fuzz.corpus FOLDER`` makes them.

Small networks of every kind that the formats can say (both precisions, undelegated, dynamic,
stateful, control flow, 4-bit weights, data files) and that our own kernels take as one (recurrent
steps, norms, transposed convolutions), files of the stock flow, a language model of each flow, and
two networks of the zoo at their real size. Needs torch; running them does not.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fuzz.mutations import Seed

ROOT = Path(__file__).resolve().parent.parent
STOCK = ROOT / "tests" / "formats" / "stock"
#: Files beyond this size are drawn seldom: one case of theirs takes as long as fifty others.
LARGE = 1 << 20
#: Programs with larger inputs are loaded and not run: the time of a case is in making them.
MANY_ELEMENTS = 1 << 20


def make(folder: Path) -> None:
    """Compiles what is not there yet."""
    import torch
    from torch import nn

    import penstock
    from penstock.compiler.quantize.quantization import Quantization

    class Picture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6(),
                nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish(), nn.MaxPool2d(2),
                nn.Conv2d(8, 16, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            )  # fmt: skip
            self.last = nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.last(self.body(x)), -1)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 32)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(self.embedding(tokens)).mean(1)
            return result

    class Cache(nn.Module):
        rows: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rows", torch.zeros(1, 2, 16, 8))
            self.project = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            new = self.project(x).view(1, 1, 2, 8).transpose(1, 2)
            self.rows.index_copy_(2, position, new)
            return nn.functional.scaled_dot_product_attention(new, self.rows, self.rows)

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 12, batch_first=True, bidirectional=True)
            self.gru = nn.GRU(24, 12, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.gru(self.lstm(x)[0])[0]
            return result

    class Choice(nn.Module):
        def forward(self, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.cond(
                flag.sum() > 0, lambda x: torch.sin(x) * 2, lambda x: x.cumsum(1), (x,)
            )
            return result

    torch.manual_seed(0)
    pictures = [(torch.randn(1, 3, 16, 16),) for _ in range(4)]
    tokens = (torch.randint(0, 50, (1, 7)),)
    batch = torch.export.Dim("batch", min=1, max=4)
    decoder = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(),
        nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1), nn.ReLU6(), nn.Conv2d(16, 2, 3),
    ).eval()  # fmt: skip
    volume = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2)).eval()
    small = [(torch.randn(1, 3, 8, 8),) for _ in range(4)]
    wide = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64)).eval()
    row = (torch.randn(3, 64),)
    static, dynamic = Quantization(), Quantization(scheme="dynamic_per_channel")
    four = Quantization(scheme="dynamic_4bit")
    files: dict[str, Callable[[], penstock.compiler.Lowered]] = {
        "picture_fp32": lambda: penstock.lower(Picture().eval(), pictures[0]),
        "picture_q8": lambda: penstock.lower(
            Picture().eval(), pictures[0], quantize=static, calibration=pictures
        ),
        "picture_q8_kernels": lambda: penstock.lower(
            Picture().eval(), pictures[0], quantize=static, calibration=pictures, delegate=False
        ),
        "picture_kernels": lambda: penstock.lower(Picture().eval(), pictures[0], delegate=False),
        "picture_batches": lambda: penstock.lower(
            Picture().eval(), (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: batch},)
        ),
        "encoder_fp32": lambda: penstock.lower(Encoder().eval(), tokens),
        "encoder_q8": lambda: penstock.lower(Encoder().eval(), tokens, quantize=dynamic),
        "encoder_lengths": lambda: penstock.lower(
            Encoder().eval(), tokens, dynamic_shapes=({1: torch.export.Dim("n", min=2, max=16)},)
        ),
        "rows_4bit": lambda: penstock.lower(wide, row, quantize=four),
        "rows_q8": lambda: penstock.lower(wide, row, quantize=dynamic),
        "decoder_fp32": lambda: penstock.lower(decoder, small[0]),
        "decoder_q8": lambda: penstock.lower(
            decoder, small[0], quantize=static, calibration=small
        ),
        "volume": lambda: penstock.lower(volume, (torch.randn(1, 2, 4, 6, 6),)),
        "steps": lambda: penstock.lower(Steps().eval(), (torch.randn(1, 5, 8),)),
        "cache": lambda: penstock.lower(
            Cache().eval(), (torch.randn(1, 1, 16), torch.tensor([3]))
        ),
        "choice": lambda: penstock.lower(Choice(), (torch.randn(2, 3), torch.ones(2))),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, lower in files.items():
        path = folder / f"{name}.pte"
        if not path.exists():
            lower().save(path)
    _compile_language_model(folder)
    for zoo_model in ("mv3", "mv2"):
        for quantize in (False, True):
            _compile_zoo(folder, zoo_model, quantize)


def _compile_language_model(folder: Path) -> None:
    """The tiny one of the tests, with weights of 4 bits."""
    from penstock.llm.export.compile import compile_model

    path = folder / "language_4bit.pte"
    if path.exists():
        return
    sys.path.insert(0, str(ROOT / "tests" / "llm"))
    tiny = importlib.import_module("tiny_models")
    with tempfile.TemporaryDirectory() as place:
        compiled = compile_model(
            tiny.folder("llama2", Path(place)), scheme="dynamic_4bit", longest=tiny.LONGEST, chunk=8
        )
        compiled.save(path)


def _compile_zoo(folder: Path, name: str, quantize: bool) -> None:
    from penstock.cli.console import Stages
    from penstock.cli.pipeline import Request, compile_model

    path = folder / f"{name}_{'q8' if quantize else 'fp32'}.pte"
    if not path.exists():
        compile_model(Request(name, quantize=quantize, output=path), Stages(quiet=True))


def corpus(folder: Path | None = None) -> list[Seed]:
    """The files of ``folder``, and those of the stock flow that are part of the tests."""
    paths = [*STOCK.glob("*.pte"), *(STOCK / "external").glob("*.pte")]
    paths += (ROOT / "tests" / "llm" / "stock").glob("*.pte")
    if folder is not None:
        paths += folder.glob("*.pte")
    return [_seed(path) for path in sorted(paths, key=lambda path: (path.parent.name, path.name))]


def _seed(path: Path) -> Seed:
    data = path.with_suffix(".ptd")
    return Seed(
        f"{path.parent.name}/{path.stem}",
        path.read_bytes(),
        data.read_bytes() if data.exists() else None,
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))

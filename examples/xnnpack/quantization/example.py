"""Quantizes a model of the zoo and compiles it for the kernels alone, without a delegate.

    python3 -m examples.xnnpack.quantization.example --model_name mv2

writes ``<name>_quantized.pte``, which ``executor_runner`` runs. The quantized operators' out
variants that such a program calls are Penstock's own; ``--so_library`` loads further custom
operators into PyTorch before the model is captured.
"""

from __future__ import annotations

import argparse

from penstock.cli.entry import quick_exit

with quick_exit():
    from penstock import zoo
    from penstock.cli.console import Stages, errors_in_one_line
    from penstock.cli.safe_console import SafeConsole
    from penstock.errors import InputError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m examples.xnnpack.quantization.example",
        description="Quantize a model of the zoo; no delegate.",
    )
    parser.add_argument(
        "-m",
        "--model_name",
        required=True,
        help=f"one of: {', '.join(zoo.names())}; or your own: module:callable or a .pt2 archive",
    )
    parser.add_argument(
        "-s", "--so_library", help="a shared library of custom operators for PyTorch to load"
    )
    parser.add_argument(
        "-ve",
        "--verify",
        action="store_true",
        help="run the file and compare the answer with eager PyTorch's",
    )
    parser.add_argument(
        "-w", "--weights", help="'default' for the library's pretrained weights, or a checkpoint"
    )
    return parser.parse_args(arguments)


def load_operators(path: str) -> None:
    """Loads a shared library of custom operators; ``InputError`` when it cannot be loaded."""
    import torch

    if not path:
        raise InputError(
            "--so_library is empty; give the path of a shared library, or leave it out"
        )
    try:
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise InputError(
            f"cannot load the operator library {path!r}: {reason}; give the path of a shared "
            "library that was built for this version of torch"
        ) from error


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    with errors_in_one_line():
        from penstock.cli.pipeline import Request, compile_model
        from penstock.cli.summary import as_table

        if options.so_library is not None:
            load_operators(options.so_library)
        outcome = compile_model(
            Request(
                source=options.model_name,
                quantize=True,
                delegate=False,
                weights=options.weights,
                test=options.verify,
            ),
            Stages(),
        )
        print(outcome.lowered.graph)
        SafeConsole(highlight=False).print(as_table(outcome))


if __name__ == "__main__":
    main()

"""Compiles a model of the zoo ahead of time.

    python3 -m examples.xnnpack.aot_compiler --model_name mv2 --delegate              # fp32
    python3 -m examples.xnnpack.aot_compiler --model_name mv2 --quantize --delegate   # 8-bit

prints the lowered graph and writes ``<name>_xnnpack_fp32.pte`` or ``<name>_xnnpack_q8.pte``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from penstock.cli.entry import quick_exit

with quick_exit():
    from penstock import zoo
    from penstock.cli.console import Stages, errors_in_one_line
    from penstock.cli.safe_console import SafeConsole


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m examples.xnnpack.aot_compiler", description="Compile a model of the zoo."
    )
    parser.add_argument(
        "-m",
        "--model_name",
        required=True,
        help=f"one of: {', '.join(zoo.names())}; or your own: module:callable or a .pt2 archive",
    )
    parser.add_argument(
        "-q", "--quantize", action="store_true", help="8-bit, by the scheme that suits the model"
    )
    parser.add_argument(
        "-d",
        "--delegate",
        action="store_true",
        help="give the graph to XNNPACK; without it the model is compiled for the kernels alone",
    )
    parser.add_argument(
        "-t",
        "--test_after_export",
        action="store_true",
        help="run the file and compare the answer with eager PyTorch's",
    )
    parser.add_argument(
        "-r", "--etrecord", help="where an ETRecord for ExecuTorch's Inspector goes"
    )
    parser.add_argument("-o", "--output_dir", default=".", help="where the file goes")
    parser.add_argument(
        "-w",
        "--weights",
        help="'default' for the library's pretrained weights, 'random', or a checkpoint",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    with errors_in_one_line():
        from penstock.cli.pipeline import Request, compile_model
        from penstock.cli.summary import as_table

        outcome = compile_model(
            Request(
                source=options.model_name,
                quantize=options.quantize,
                delegate=options.delegate,
                output_dir=Path(options.output_dir),
                weights=options.weights,
                test=options.test_after_export,
                etrecord=options.etrecord or None,
            ),
            Stages(),
        )
        print(outcome.lowered.graph)
        SafeConsole(highlight=False).print(as_table(outcome))


if __name__ == "__main__":
    main()

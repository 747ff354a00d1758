"""Runs a ``.pte`` file with XNNPACK; the same program as the command ``xnn_executor_runner``.

    python3 -m examples.xnnpack.xnn_executor_runner --model_path mv2_xnnpack_fp32.pte

needs no torch.
"""

from __future__ import annotations

from penstock.cli.entry import xnn_executor_runner as main

if __name__ == "__main__":
    main()

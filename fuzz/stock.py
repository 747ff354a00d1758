"""The stock runtime of the ``executorch`` package on the same files."""

from __future__ import annotations

import math
from collections.abc import Callable

from fuzz.corpus import MANY_ELEMENTS
from fuzz.mutations import Mutant


def stock_run() -> Callable[[Mutant], str]:
    """Loads with every check that the runtime offers and runs every method once."""
    import executorch.kernels.quantized  # noqa: F401  registers the quantized kernels
    import torch
    from executorch.extension.pybindings.portable_lib import Verification
    from executorch.runtime import Runtime

    runtime = Runtime.get()
    types = {3: torch.int32, 4: torch.int64, 6: torch.float32, 11: torch.bool, 1: torch.int8}

    def run(hostile: Mutant) -> str:
        stage = "load"
        try:
            program = runtime.load_program(
                hostile.program, verification=Verification.InternalConsistency
            )
            for name in program.method_names:
                stage = "prepare"
                method = program.load_method(name)
                if method is None:
                    return "refused at prepare"
                inputs = []
                for index in range(method.metadata.num_inputs()):
                    spec = method.metadata.input_tensor_meta(index)
                    if math.prod(spec.sizes()) > MANY_ELEMENTS:
                        return "too large to run"
                    inputs.append(torch.ones(spec.sizes(), dtype=types[spec.dtype()]))
                stage = "run"
                method.execute(inputs)
            return "ran"
        except (RuntimeError, ValueError, KeyError, TypeError):
            return f"refused at {stage}"

    return run

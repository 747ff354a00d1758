"""Run by the tests in a process of its own, with the stock ``executorch`` package: what its
``Inspector`` sees in an ETDump, with an ETRecord or without."""

from __future__ import annotations

import io
import json
import sys
import warnings

from executorch.devtools import Inspector


def main(etdump: str, etrecord: str | None = None) -> None:
    warnings.simplefilter("ignore")
    inspector = Inspector(etdump_path=etdump, etrecord=etrecord)
    table = io.StringIO()
    inspector.print_data_tabular(table)
    blocks = [
        {
            "name": block.name,
            "events": [
                {
                    "name": event.name,
                    "milliseconds": event.perf_data.raw,
                    "delegated": event.is_delegated_op,
                    "backend": event.delegate_backend_name,
                    "operators": event.op_types,
                    "modules": {
                        name: [path for path, _ in stack.values()]
                        for name, stack in event.module_hierarchy.items()
                    },
                    "traces": event.stack_traces,
                }
                for event in block.events
            ],
        }
        for block in inspector.event_blocks
    ]
    modules = ("conv", "head", "absent")
    print(
        json.dumps(
            {
                "blocks": blocks,
                "table": table.getvalue(),
                "totals": {name: inspector.find_total_for_module(name) for name in modules},
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

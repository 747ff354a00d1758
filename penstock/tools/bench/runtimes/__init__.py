"""One module a runtime, which alone imports its package; see ``penstock.tools.bench.worker``."""

"""XNNPACK as an engine: the library (found, bound, self-tested), graphs, threads."""

"""Measurements against the stock ``executorch`` package: latency, memory, compile time, size."""

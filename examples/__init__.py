"""Examples: run them from the repository's root with ``python3 -m examples...``."""

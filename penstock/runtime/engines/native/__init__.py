"""Our own kernels: the C library built from ``native/``, and the engine that runs graphs on it."""

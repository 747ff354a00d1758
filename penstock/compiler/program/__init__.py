"""The lowered graph -> an ExecuTorch program: kernels, control flow, memory plan."""

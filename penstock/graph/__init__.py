"""What one delegate computes: an :class:`~penstock.graph.graph.XnnGraph` of typed values and nodes.

Known to compiler and runtime alike. No bytes of a file, no torch, no library.
"""

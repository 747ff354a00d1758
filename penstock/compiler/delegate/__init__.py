"""ATen -> :class:`~penstock.graph.graph.XnnGraph`: partition, operators, lowering, graph passes."""

"""What executes an :class:`~penstock.graph.graph.XnnGraph`: the protocol, the planner, engines."""

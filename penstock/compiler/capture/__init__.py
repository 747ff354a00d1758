"""A PyTorch model -> a graph, by one ``torch.export``."""

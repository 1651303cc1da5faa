"""mithril: compose models as graphs, compile them to readable source for PyTorch, JAX, MLX or NumPy."""

"""MLX: the backend object, and the kernels whose sources are pasted into generated modules."""

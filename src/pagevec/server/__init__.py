"""The HTTP service over any embedder."""

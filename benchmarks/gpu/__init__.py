"""What waits for a GPU: `python -m benchmarks.gpu` does all of it in one run."""

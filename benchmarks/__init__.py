"""Benchmarks of pagevec beside its alternatives: `python -m benchmarks` lists them."""


class BenchmarkFailed(Exception):
    """There are no figures to report; the message says why, and what to do."""

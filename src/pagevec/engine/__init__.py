"""The engine: checkpoints, preparation, batches, forward passes."""

import os

# Threads that prepare pages and threads that run the model share the cores. By default OpenMP's
# threads spin for milliseconds while they wait, and take the cores from whoever they wait for;
# those that sleep at once wake up late. A short spin does neither (docs/benchmarks.md). It is read
# once, when torch is first imported, by the OpenMP library of torch's builds for Linux.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

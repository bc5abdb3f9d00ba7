"""The engine: checkpoints, preparation, batches, forward passes."""

import os

# Threads that prepare pages and threads that run the model share the cores. By default OpenMP's
# threads spin for milliseconds while they wait, which takes the cores from the threads they wait
# for; without spinning they wake up late. A short spin does neither (docs/benchmarks.md). The
# variable is read once, when torch is first imported, by the OpenMP library of its Linux builds.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

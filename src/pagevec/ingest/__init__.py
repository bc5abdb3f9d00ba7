"""Documents on disk, as pages."""

LEASE_SECONDS = 15.0
"""How long a worker that was killed keeps its documents, before others take them over."""

"""HTTP client of the embedding service, synchronous and asynchronous. Needs numpy and httpx only.

`pagevec.client.faults` documents the errors that its calls raise.
"""

from pagevec.client.aio import AsyncClient
from pagevec.client.sync import Client

__all__ = ["AsyncClient", "Client"]

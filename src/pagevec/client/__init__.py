"""The client of the embedding service. Needs numpy and httpx; loads no torch, no FastAPI.

What its calls raise is in `pagevec.client.faults`.
"""

from pagevec.client.aio import AsyncClient
from pagevec.client.sync import Client

__all__ = ["AsyncClient", "Client"]

"""HTTP client of the embedding service, synchronous and asynchronous. Needs numpy and httpx only.

`pagevec.client.faults` documents the errors that its calls raise.
"""

from typing import TYPE_CHECKING, Any

from pagevec.client.sync import Client

if TYPE_CHECKING:
    from pagevec.client.aio import AsyncClient

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pagevec.client.aio import AsyncClient  # with asyncio, which a command has no use for

    return AsyncClient

"""A first look: documents go through a running service, and a table says what came back."""

import time
from pathlib import Path

from pagevec.client import Client
from pagevec.ingest.page import SourcePage
from pagevec.ingest.sources import named_pages


def table_of(address: str, key: str, paths: list[Path]) -> str:
    """Embed each page of `paths` through the service at `address`; return a line for each."""
    with Client(address, key) as client:
        lines = [_embed_one(client, name, page) for name, page in named_pages(paths)]
    return "\n".join([f"{'page':32}{'vectors':>9}{'ms':>8}", *lines])


def _embed_one(client: Client, name: str, page: SourcePage) -> str:
    started = time.perf_counter()
    if isinstance(page.content, str):
        [vectors] = client.embed_texts([page.content])
    else:
        [vectors] = client.embed_images([page.content])
    milliseconds = (time.perf_counter() - started) * 1000
    return f"{name:32}{len(vectors):>9}{milliseconds:>8.0f}"

"""A first look: embed documents and print what comes back."""

import time
from pathlib import Path

from pagevec.ingest.boundary import open_document
from pagevec.ingest.names import name_unstored
from pagevec.ingest.pipeline import embed_pages
from pagevec.ingest.sources import find_documents
from pagevec.terminal import show_on_one_line
from pagevec.types import Model


def demo_table(model: Model, paths: list[Path]) -> str:
    """Embed each page of `paths` with `model`; return a table with a line for each."""
    lines = [f"{'page':40}{'vectors':>9}{'ms':>8}"]
    for document in name_unstored(find_documents(paths)):
        with open_document(document.path) as pages:
            for number in range(1, pages.count + 1):
                page = pages.make(number)
                started = time.perf_counter()
                [embedded] = embed_pages(model, document.name, [page], resizing=None)
                milliseconds = (time.perf_counter() - started) * 1000
                name = show_on_one_line(f"{document.name}#{number}")
                lines.append(f"{name:40}{len(embedded.vectors):>9}{milliseconds:>8.0f}")
    return "\n".join(lines)

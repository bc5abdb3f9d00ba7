"""`pagevec embed`: files in, an .npz of multi-vectors out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from pagevec.client import Client
from pagevec.ingest.page import SourcePage
from pagevec.ingest.sources import named_pages
from pagevec.types import MultiVector

EmbedPage = Callable[[SourcePage], MultiVector]


@click.command("embed")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("embeddings.npz"), show_default=True
)
@click.option("--url", help="A running service; without it the model runs in this process.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key for --url.")
@click.option("--model", help="Without --url: a checkpoint, its directory, or `bundled`.")
def command(
    files: tuple[Path, ...], out: Path, url: str | None, key: str | None, model: str | None
) -> None:
    """Embed the pages of PDFs, images and texts into one .npz file.

    It holds `names` (such as `report.pdf#3`) and `emb_0`, `emb_1`, ... in the same order, each
    float32 (vectors, dim).
    """
    with _service(url, key) if url else _this_process(model) as embed_page:
        names, vectors = _embed_all(list(files), embed_page)
    arrays: dict[str, Any] = {f"emb_{index}": one for index, one in enumerate(vectors)}
    with out.open("wb") as file:
        np.savez(file, names=np.array(names), **arrays)
    click.echo(f"{len(names)} pages, {sum(map(len, vectors))} vectors -> {out}")


def _embed_all(paths: list[Path], embed_page: EmbedPage) -> tuple[list[str], list[MultiVector]]:
    names, vectors = [], []
    for name, page in tqdm(named_pages(paths), unit=" pages"):
        names.append(name)
        vectors.append(embed_page(page))
    return names, vectors


@contextmanager
def _service(url: str, key: str | None) -> Iterator[EmbedPage]:
    with Client(url, key) as client:

        def embed_page(page: SourcePage) -> MultiVector:
            if isinstance(page.content, str):
                return client.embed_texts([page.content], dtype="float32")[0]
            return client.embed_images([page.content], dtype="float32", resize=False)[0]

        yield embed_page


@contextmanager
def _this_process(model: str | None) -> Iterator[EmbedPage]:
    from pagevec.engine.embedder import LocalEmbedder
    from pagevec.engine.models.loader import load
    from pagevec.images import read_image
    from pagevec.settings import Settings

    settings = Settings.from_environment(model=model)
    embedder = LocalEmbedder.of(settings, lambda: load(settings))
    embedder.wait_until_ready()

    def embed_page(page: SourcePage) -> MultiVector:
        is_text = isinstance(page.content, str)
        one = [page.content] if is_text else [read_image(page.content)]  # type: ignore[arg-type]
        return embedder.embed(one).result().vectors[0]  # type: ignore[arg-type]

    try:
        yield embed_page
    finally:
        embedder.close()

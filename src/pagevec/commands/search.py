"""`pagevec search`: a query in words, the pages that answer it."""

import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pagevec.client import Client
from pagevec.errors import InvalidRequest
from pagevec.ingest.sources import open_document
from pagevec.search.retriever import Retriever
from pagevec.search.similarity_maps import draw, map_of_all, similarity_maps
from pagevec.stores.base import Filter, Store
from pagevec.stores.open import DEFAULT_STORE, open_store
from pagevec.types import Hit, MultiVector, Page

if TYPE_CHECKING:
    from PIL import Image


@click.command("search")
@click.argument("query")
@click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, or postgresql://")
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="The service.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key.")
@click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Hits.")
@click.option("--document", "names", multiple=True, help="Only in this document (repeatable).")
@click.option("--where", multiple=True, metavar="NAME=VALUE", help="Only pages with this metadata.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of hits.")
@click.option("--maps", type=click.Path(file_okay=False, path_type=Path), help="Draw maps here.")
def command(
    query: str,
    store: str,
    url: str,
    key: str | None,
    count: int,
    names: tuple[str, ...],
    where: tuple[str, ...],
    as_json: bool,
    maps: Path | None,
) -> None:
    """Search the pages of a store for QUERY, by late interaction (exact MaxSim)."""
    opened = open_store(store)
    with Client(url, key) as client:
        retriever = Retriever(client, opened)
        vectors = retriever.embed(query)
    hits = retriever.search_vectors(vectors, count, _filter(names, where))
    click.echo(_as_json(hits) if as_json else _as_lines(hits))
    if maps is not None:
        _draw_maps(vectors, hits, opened, maps)
    opened.close()


def _filter(names: tuple[str, ...], where: tuple[str, ...]) -> Filter:
    documents = frozenset(str(Path(name).resolve()) for name in names)
    pairs = dict(pair.partition("=")[::2] for pair in where)
    return Filter(documents, pairs)


def _as_json(hits: list[Hit]) -> str:
    rows = [
        {
            "document": hit.key.document,
            "page": hit.key.number,
            "score": round(hit.score, 4),
            "metadata": dict(hit.metadata),
        }
        for hit in hits
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2)


def _as_lines(hits: list[Hit]) -> str:
    rows = [f"{hit.score:8.3f}  {hit.key.document}, page {hit.key.number}" for hit in hits]
    return "\n".join(rows) or "no pages"


def _draw_maps(query: MultiVector, hits: list[Hit], store: Store, folder: Path) -> None:
    """Write for each hit a map of all query tokens together, and one for each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, page in enumerate(store.fetch([hit.key for hit in hits]), start=1):
        try:
            values = similarity_maps(query, page)
        except InvalidRequest as error:
            click.echo(error.message, err=True)
            continue
        image = _picture_of(page)
        stem = f"{rank:02}-{Path(page.key.document).stem}-{page.key.number}"
        _save(draw(map_of_all(values), image), folder / f"{stem}.jpg")
        for token, one in enumerate(values):
            _save(draw(one, image), folder / f"{stem}-token-{token:02}.jpg")
    click.echo(f"maps are in {folder}")


def _save(drawn: "Image.Image", file: Path) -> None:
    # A query has a map for each of its tokens: as PNG each takes half a second and a megabyte.
    drawn.save(file, quality=90)


def _picture_of(page: Page) -> "Image.Image":
    from PIL import Image

    try:
        with open_document(Path(page.key.document)) as pages:
            content = pages.make(page.key.number).content
        picture = content if isinstance(content, bytes) else page.thumbnail
    except (InvalidRequest, OSError):
        picture = page.thumbnail  # the file is gone: the store's small picture has to do
    if picture is None:
        raise InvalidRequest(f"{page.key.document}: there is no picture of it")
    return Image.open(BytesIO(picture)).convert("RGB")

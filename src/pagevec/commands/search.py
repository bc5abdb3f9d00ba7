"""`pagevec search`: a query in words, the pages that answer it."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from pagevec.client import Client
from pagevec.errors import InvalidRequest
from pagevec.search.index import Hit, Index
from pagevec.stores import DEFAULT_STORE


@click.command("search")
@click.argument("query")
@click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, or postgresql://")
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="The service.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key.")
@click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Hits.")
@click.option(
    "--document",
    "documents",
    multiple=True,
    help="Only in this document, by its name or the path of its file (repeatable).",
)
@click.option("--where", multiple=True, metavar="NAME=VALUE", help="Only pages with this metadata.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of hits.")
@click.option(
    "--maps",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw into this folder where each word of QUERY finds its answer.",
)
def command(
    query: str,
    store: str,
    url: str,
    key: str | None,
    count: int,
    documents: tuple[str, ...],
    where: tuple[str, ...],
    as_json: bool,
    maps: Path | None,
) -> None:
    """Search the pages of a store for QUERY, by late interaction (exact MaxSim)."""
    metadata = dict(pair.partition("=")[::2] for pair in where)
    with Client(url, key) as client, Index(store, client) as index:
        hits = index.search(query, count, documents=documents, metadata=metadata)
    click.echo(_as_json(hits) if as_json else _as_lines(hits))
    if maps is not None:
        _draw_maps(hits, maps)


def _as_json(hits: Sequence[Hit]) -> str:
    rows = [
        {
            "document": hit.document,
            "page": hit.page,
            "score": round(hit.score, 4),
            "metadata": dict(hit.metadata),
        }
        for hit in hits
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2)


def _as_lines(hits: Sequence[Hit]) -> str:
    rows = [f"{hit.score:8.3f}  {hit.document}, page {hit.page}" for hit in hits]
    return "\n".join(rows) or "no pages"


def _draw_maps(hits: Sequence[Hit], folder: Path) -> None:
    """Draw for each hit a map of the whole query, and one for each of its words."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, hit in enumerate(hits, start=1):
        file = folder / f"{rank:02}-{Path(hit.document).stem}-{hit.page}.jpg"
        try:
            hit.maps().save(hit.picture(), file)
        except InvalidRequest as error:
            click.echo(error.message, err=True)
    click.echo(f"maps are in {folder}")

"""`pagevec search`: a query in words, the pages that answer it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pagevec.client import Client
from pagevec.commands import with_ca
from pagevec.errors import PagevecError
from pagevec.search.index import Hit, Index
from pagevec.stores import DEFAULT_STORE
from pagevec.terminal import echo, show_json

_PATIENCE = 60.0  # seconds that a person waits for a service that is away
_STEM_BYTES = 100  # of a file name; file systems take 255 for all of it


@click.command("search")
@click.argument("query")
@click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, or postgresql://")
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="The service.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key.")
@with_ca
@click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Hits.")
@click.option(
    "--document",
    "documents",
    multiple=True,
    help="Only in this document, or all documents below a folder: name or path (repeatable).",
)
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    help='Only pages with this metadata: a number, true, false, null, or text ("3" in quotes is '
    "text, too).",
)
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
    ca: Path | None,
    count: int,
    documents: tuple[str, ...],
    where: tuple[str, ...],
    as_json: bool,
    maps: Path | None,
) -> None:
    """Search the pages of a store for QUERY, by late interaction (exact MaxSim)."""
    metadata = dict(map(_read_condition, where))
    with (
        Client(url, key, ca=ca, patience=_PATIENCE) as client,
        Index(store, client, create=False) as index,
    ):
        hits = index.search(query, count, documents=documents, metadata=metadata)
    if as_json:
        click.echo(_as_json(hits))
    else:
        echo(*_as_lines(hits))
    if maps is not None:
        _draw_maps(hits, maps)


def _read_condition(pair: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that JSON knows as a number, text, true, false or null is that."""
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{pair!r}: expected NAME=VALUE", param_hint="--where")
    try:
        read = json.loads(value, parse_constant=lambda _: value)  # NaN, Infinity: words
    except ValueError:
        return name, value
    return name, value if isinstance(read, list | dict) else read


def _as_json(hits: Sequence[Hit]) -> str:
    rows = [
        {
            "document": hit.document,
            "page": hit.page,
            "score": round(hit.score, 4),
            "metadata": dict(hit.metadata),
            **({"error": hit.error} if hit.error else {}),
        }
        for hit in hits
    ]
    return show_json(rows)


def _as_lines(hits: Sequence[Hit]) -> list[str]:
    rows = [f"{hit.score:8.3f}  {hit.document}, page {hit.page}{_remark(hit)}" for hit in hits]
    return rows or ["no pages"]


def _remark(hit: Hit) -> str:
    return f"  ({hit.error})" if hit.error else ""


def _draw_maps(hits: Sequence[Hit], folder: Path) -> None:
    """Draw for each hit a map of the whole query, and one for each of its words."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, hit in enumerate(hits, start=1):
        stem = Path(hit.document).stem.encode()[:_STEM_BYTES].decode(errors="ignore")
        try:
            hit.maps().save(hit.picture(), folder / f"{rank:02}-{stem}-{hit.page}.jpg")
        except (PagevecError, OSError) as error:  # costs this map, not the others
            echo(f"no map of {hit.document}, page {hit.page}: {error}", err=True)
    echo(f"maps are in {folder}")

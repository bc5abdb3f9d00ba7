"""`pagevec documents` and `pagevec remove`: what is in a store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pagevec.commands import PATIENCE, Service, with_ca, with_key, with_output, with_store
from pagevec.stores import is_service, open_store
from pagevec.terminal import count, echo, show_json

if TYPE_CHECKING:
    from pagevec.ingest.catalogue import Catalogue, StoredDocument
    from pagevec.search.remote_documents import RemoteCatalogue


@click.command("documents")
@with_store
@with_key
@with_ca
@click.option("--json", "as_json", is_flag=True, help="One JSON list of documents.")
@with_output
def command(store: str, key: str | None, ca: Path | None, as_json: bool) -> None:
    """List the documents of a store: their pages, and what is missing of them."""
    from pagevec.ingest.sources import escape

    with _open(store, key, ca) as catalogue:
        documents = catalogue.list()
    if as_json:
        rows = [{**asdict(one), "path": one.path and escape(str(one.path))} for one in documents]
        click.echo(show_json(rows))
        return
    for one in documents:
        echo(f"{_pages(one):>12}  {one.name}{_remark(one)}")
    echo(count(len(documents), "document"))


@click.command("remove")
@click.argument("documents", nargs=-1, required=True)
@with_store
@with_key
@with_ca
@with_output
def remove(documents: tuple[str, ...], store: str, key: str | None, ca: Path | None) -> None:
    """Remove DOCUMENTS from a store, by their names or the paths of their files.

    The files stay where they are; so a later `pagevec ingest` of their folder adds them again. Only
    a service removes the files that it keeps, too.
    """
    with _open(store, key, ca) as catalogue:
        # Each once, and all of them known, before the first one goes.
        for name in dict.fromkeys(map(catalogue.find_ours, documents)):
            echo(f"removed: {name} ({count(catalogue.remove(name), 'page')})")


@contextmanager
def _open(store: str, key: str | None, ca: Path | None) -> Iterator["Catalogue | RemoteCatalogue"]:
    """Open the catalogue of a store, or that of a service, which the key and `ca` are for."""
    if is_service(store):
        from pagevec.search.remote_documents import RemoteCatalogue

        with Service.behind(store, "", key, ca).connect(patience=PATIENCE, resize=False) as client:
            yield RemoteCatalogue(client)
        return
    from pagevec.ingest.catalogue import Catalogue

    with open_store(store, create=False) as opened:
        yield Catalogue(opened)


def _pages(one: "StoredDocument") -> str:
    of = f" of {one.pages}" if one.pages not in (None, one.stored) else ""
    return f"{one.stored}{of} {'page' if one.stored == 1 and not of else 'pages'}"


def _remark(one: "StoredDocument") -> str:
    if not one.is_ours:
        return "  (morphik-core's)"
    from pagevec.ingest.catalogue import is_gone

    if one.error is not None:
        return f"  ({one.error})"
    return "  (its file is gone)" if one.path and is_gone(one.path) else ""

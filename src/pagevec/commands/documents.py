"""`pagevec documents` and `pagevec remove`: what is in a store."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pagevec.commands import with_output, with_store
from pagevec.stores import open_store
from pagevec.terminal import count, echo, show_json

if TYPE_CHECKING:
    from pagevec.ingest.catalogue import StoredDocument


@click.command("documents")
@with_store
@click.option("--json", "as_json", is_flag=True, help="One JSON list of documents.")
@with_output
def command(store: str, as_json: bool) -> None:
    """List the documents of a store: their pages, and what is missing of them."""
    from pagevec.ingest.catalogue import Catalogue
    from pagevec.ingest.sources import escape

    with open_store(store, create=False) as opened:
        documents = Catalogue(opened).list()
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
@with_output
def remove(documents: tuple[str, ...], store: str) -> None:
    """Remove DOCUMENTS from a store, by their names or the paths of their files.

    The files stay where they are; so a later `pagevec ingest` of their folder adds them again.
    """
    from pagevec.ingest.catalogue import Catalogue

    with open_store(store, create=False) as opened:
        catalogue = Catalogue(opened)
        # Each once, and all of them known, before the first one goes.
        for name in dict.fromkeys(map(catalogue.find_ours, documents)):
            echo(f"removed: {name} ({count(catalogue.remove(name), 'page')})")


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

"""`pagevec export`: a store into another one, of whatever kind."""

import sys

import click

from pagevec.commands import FAILED, progress_bar, with_output
from pagevec.commands.interrupts import interruptible, report_when_interrupted
from pagevec.secrets import mask_secrets
from pagevec.stores import open_store
from pagevec.terminal import count, echo


@click.command("export")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@with_output
@interruptible
def command(source: str, target: str) -> None:
    """Copy the documents of the store FROM into the store TO, page by page.

    Each is a folder, postgresql://..., qdrant://host:6333/NAME or qdrant:FOLDER. TO is made
    if there is none. It may hold other documents, but only of the same model. Every page is read
    back and compared. Whatever stops an export, start it again: it goes on. FROM is not changed.
    """
    from pagevec.stores.export import export

    pages = 0
    report_when_interrupted(
        lambda: f"interrupted after {count(pages, 'page')}: start it again to go on"
    )
    with (
        open_store(source, create=False) as old,
        open_store(target) as new,
        progress_bar("pages", total=0) as progress,
    ):

        def show(done: int, total: int) -> None:
            nonlocal pages
            progress.total = total
            progress.update(done - pages)
            pages = done

        exported = export(old, new, show)
    for reason in exported.failed.values():
        echo(f"FAILED  {reason}", err=True)
    echo(
        f"exported: {count(exported.pages, 'page')} of {count(exported.documents, 'document')}, "
        f"{count(exported.copied, 'page')} of them now, to {mask_secrets(target)}"
    )
    if exported.failed:
        echo(f"{count(len(exported.failed), 'document')} failed")
        sys.exit(FAILED)

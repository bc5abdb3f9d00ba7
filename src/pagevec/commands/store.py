"""`pagevec store`: what an operator does with a store."""

from pathlib import Path

import click

from pagevec.commands import progress_bar, with_output
from pagevec.commands.interrupts import interruptible, report_when_interrupted
from pagevec.stores import back_up_store, open_store
from pagevec.terminal import count, echo


@click.group("store")
def command() -> None:
    """Look after a store: back it up, index it, while it is used."""


@command.command("backup")
@click.argument("store")
@click.option(
    "--to",
    required=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder of the copy: a new one, or one that is empty.",
)
@with_output
@interruptible
def backup(store: str, to: Path) -> None:
    """Copy STORE, a folder, as it is at one moment, while others may write to it.

    The copy is a store itself. It is checked before it gets its name, so that a backup that was
    interrupted is not taken for a whole one. Logs are not copied. For PostgreSQL use pg_dump.
    """
    report_when_interrupted(lambda: f"interrupted: there is no backup in {to}")
    with progress_bar("B", total=0) as progress:
        progress.unit_scale = True

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        made = back_up_store(store, to, show)
    echo(
        f"backed up: {count(made.pages, 'page')} of {count(made.documents, 'document')}, "
        f"{made.bytes / 1e6:,.1f} MB, in {made.folder}"
    )


@command.command("index")
@click.argument("store")
@click.option("--again", is_flag=True, help="Make the index of all pages anew.")
@with_output
@interruptible
def index(store: str, again: bool) -> None:
    """Bring all pages of STORE into the index that makes searches fast.

    Ingestion does it as pages come. A store of an older version catches up by this, and one that
    has grown much, or to pages of another kind, is searched better for it with --again. Others may
    search and write meanwhile. Interrupted, it goes on when it is started again.
    """
    passed = 0
    report_when_interrupted(
        lambda: f"interrupted after {count(passed, 'page')}: start it again to go on"
    )
    with open_store(store, create=False) as opened, progress_bar("pages", total=0) as progress:
        while pages := opened.index_pages(again=again):
            again = False
            passed += pages
            progress.update(pages)
    echo(f"indexed: {count(passed, 'page')}")

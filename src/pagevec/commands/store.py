"""`pagevec store`: what an operator does with a store."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pagevec.commands import (
    FAILED,
    PATIENCE,
    FromEnvironment,
    Service,
    note,
    progress_bar,
    read_threshold,
    with_ca,
    with_key,
    with_output,
)
from pagevec.commands.interrupts import interruptible, report_when_interrupted
from pagevec.errors import InvalidRequest
from pagevec.stores import back_up_store, open_store
from pagevec.terminal import count, echo, show_json

if TYPE_CHECKING:
    from pagevec.search.condensing import Loss
    from pagevec.stores.base import Store


@click.group("store")
def command() -> None:
    """Look after a store: back it up, make it smaller, index it, while it is used."""


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


@command.command("compact")
@click.argument("store")
@click.option(
    "--threshold",
    metavar="COSINE",
    callback=read_threshold,
    help="Vectors of a page whose cosine is this or above are kept once; default: the store's own.",
)
@click.option("--measure", is_flag=True, help="Change nothing: show what thresholds would lose.")
@click.option(
    "--pages",
    type=click.IntRange(2),
    default=100,
    show_default=True,
    help="Of a measurement, at most.",
)
@click.option(
    "--url",
    cls=FromEnvironment,
    envvar="PAGEVEC_URL",
    show_envvar=True,
    help="Service of the pages' model: a measurement asks with words of their text layers; "
    "default: with vectors of the pages themselves.",
)
@with_key
@with_ca
@click.option("--json", "as_json", is_flag=True, help="Print what was measured or done as JSON.")
@with_output
@interruptible
def compact(
    store: str,
    threshold: float | None,
    measure: bool,
    pages: int,
    url: str | None,
    key: str | None,
    ca: Path | None,
    as_json: bool,
) -> None:
    """Keep near-duplicate vectors of each page of STORE once, while others read and write it.

    Much of a page is blank paper, of which one vector says as much as a thousand. Maps of where a
    query finds its answer keep all cells. What was dropped does not come back without ingesting
    again: see first what it would change, with --measure. Whatever stops this, start it again:
    it goes on. In the end free space of a store in a folder is given back to the disk.
    """
    with open_store(store, create=False) as opened:
        if measure:
            service = None if url is None else Service(url, key, ca)
            losses = _measure(opened, threshold, pages, service)
            click.echo(show_json([asdict(one) for one in losses]) if as_json else _table(losses))
        else:
            _compact(opened, threshold, as_json)


def _compact(store: "Store", threshold: float | None, as_json: bool) -> None:
    from pagevec.stores.compact import OF_OTHERS
    from pagevec.stores.compact import compact as compact_pages
    from pagevec.stores.condense import OFF

    own = store.condensing()
    chosen = threshold if threshold is not None else own
    if chosen is None or (threshold is None and chosen >= OFF):
        raise click.UsageError(
            "give --threshold: the store has none (--measure shows what each would lose)"
        )
    passed = 0
    report_when_interrupted(
        lambda: f"interrupted after {count(passed, 'page')}: start it again to go on"
    )
    with progress_bar("pages", total=0) as progress:

        def show(done: int, total: int) -> None:
            nonlocal passed
            progress.total = total
            progress.update(done - passed)
            passed = done

        done = compact_pages(store, chosen, show)
    space = store.give_back_space()
    if as_json:
        click.echo(show_json({**asdict(done), "space": space}))
    else:
        share = f": {done.after / done.before:.1%} of their vectors are kept" if done.before else ""
        already = f"; {done.already:,} were condensed already" if done.already else ""
        echo(f"condensed: {count(done.pages, 'page')} now{share}{already}; {space}")
    for name, reason in done.left.items():
        echo(f"left as it is: {name}: {reason}", err=True)
    if any(reason is not OF_OTHERS for reason in done.left.values()):
        sys.exit(FAILED)


def _measure(
    store: "Store", threshold: float | None, most: int, service: Service | None
) -> "Sequence[Loss]":
    from pagevec.search.condensing import (
        THRESHOLDS,
        ask_vectors,
        ask_words,
        measure_loss,
        sample_pages,
    )
    from pagevec.search.retriever import Retriever

    sample = sample_pages(store, most)
    if len(sample) < 2:
        raise InvalidRequest(
            "there are no two pages that are not condensed yet: nothing to measure"
        )
    if service is None:
        questions, kind = ask_vectors(sample), "vectors of the pages"
    else:
        with service.connect(patience=PATIENCE) as client:
            Retriever(client, store).check_model()
            questions, kind = ask_words(sample, client), "words of their text layers"
        if not questions:
            raise InvalidRequest("no page has a text layer: leave out --url to ask with vectors")
    note(f"{count(len(sample), 'page')}, {count(len(questions), 'question')} made from {kind}")
    return measure_loss(sample, questions, THRESHOLDS if threshold is None else (threshold,))


def _table(losses: "Sequence[Loss]") -> str:
    head = ("cosine", "kept", "kB a page", "own page 1st", "in first 5", "top 10", "score by")
    rows = [
        (
            f"{one.threshold:g}",
            f"{one.kept:.1%}",
            f"{one.bytes_before / 1e3:.0f} > {one.bytes_after / 1e3:.0f}",
            "{:.3f} > {:.3f}".format(*one.found_first),
            "{:.3f} > {:.3f}".format(*one.found_in_5),
            f"{one.same_10:.1%}",
            f"{one.largest_change:.4f}",
        )
        for one in losses
    ]
    return "\n".join("  ".join(f"{cell:>14}" for cell in row) for row in (head, *rows))


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

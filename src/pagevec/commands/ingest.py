"""`pagevec ingest`: documents into a store."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from tqdm import tqdm

from pagevec.client import Client
from pagevec.ingest.leases import LEASE_SECONDS
from pagevec.search.index import Index, Report
from pagevec.stores import DEFAULT_STORE

LOG = Path("logs/worker_ingestion.log")
# Tries of a request without an answer: an ingestion of hours outlives a service that stumbles.
ATTEMPTS = 8


def _take_former_option(
    ctx: click.Context, _option: click.Parameter, seconds: float | None
) -> None:
    if seconds is not None:
        click.echo("warning: --claim-seconds is deprecated: write --lease-seconds", err=True)
        ctx.params["lease_seconds"] = seconds


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, or postgresql://")
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="The service.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key.")
@click.option(
    "--as",
    "label",
    metavar="LABEL",
    help="First part of the documents' names; default: their folder's own name.",
)
@click.option("--strict", is_flag=True, help="Exit code 1 if a document failed.")
@click.option("--watch", is_flag=True, help="Go on: keep the store in step with the folders.")
@click.option(
    "--lease-seconds",
    type=click.FloatRange(0.5, 3600),
    default=LEASE_SECONDS,
    show_default=True,
    help="After this long, others take over the documents of a killed worker.",
)
@click.option(
    "--claim-seconds",
    type=click.FloatRange(0.5, 3600),
    hidden=True,
    expose_value=False,
    callback=_take_former_option,
)
def command(
    paths: tuple[Path, ...],
    store: str,
    url: str,
    key: str | None,
    label: str | None,
    strict: bool,
    watch: bool,
    lease_seconds: float,
) -> None:
    """Embed the pages of PDFs, images, texts and Office files, and store them.

    Folders are read with all that is below them. A document is called LABEL/path below its folder,
    where LABEL is the folder's own name; a folder that has moved is recognised by its documents.
    Ingestion can be stopped and started at any moment; pages that are stored already cost nothing.
    What happens is also in logs/worker_ingestion.log.
    """
    _log_to_file()
    with (
        Client(url, key, attempts=ATTEMPTS) as client,
        Index(store, client, lease_seconds=lease_seconds) as index,
    ):
        report = _add(index, list(paths), label)
        if watch:
            _watch(index, list(paths), label)
    sys.exit(1 if report.failed and strict else 0)


def _add(index: Index, paths: list[Path], label: str | None) -> Report:
    with tqdm(total=0, unit=" pages", dynamic_ncols=True) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        report = index.add(paths, label=label, on_progress=show)
    click.echo(
        f"{report.pages_stored} pages stored; {len(report.skipped)} documents were there already"
    )
    for outcome in report.failed:
        click.echo(f"failed: {outcome.document}: {outcome.error}", err=True)
    return report


def _watch(index: Index, paths: list[Path], label: str | None) -> None:
    for _ in _changes(paths):
        for name in index.remove_missing([path for path in paths if path.is_dir()]):
            click.echo(f"removed: {name}")
        _add(index, [path for path in paths if path.exists()], label)


def _changes(paths: list[Path]) -> Iterator[object]:
    try:
        from watchfiles import watch
    except ImportError:
        raise click.ClickException("--watch needs `pip install 'pagevec[watch]'`") from None
    yield from watch(*paths)


def _log_to_file() -> None:
    LOG.parent.mkdir(exist_ok=True)
    handler = logging.FileHandler(LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("pagevec.ingest")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

"""`pagevec ingest`: documents into a store."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from tqdm import tqdm

from pagevec.client import Client
from pagevec.grid import PageResizing
from pagevec.ingest.leases import CLAIM_SECONDS
from pagevec.ingest.sources import documents
from pagevec.ingest.worker import Outcome, Worker
from pagevec.stores.open import DEFAULT_STORE, open_store

LOG = Path("logs/worker_ingestion.log")
# Tries of a request without an answer: an ingestion of hours outlives a service that stumbles.
ATTEMPTS = 8


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, or postgresql://")
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="The service.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key.")
@click.option("--strict", is_flag=True, help="Exit code 1 if a document failed.")
@click.option("--watch", is_flag=True, help="Go on: keep the store in step with the folders.")
@click.option(
    "--claim-seconds",
    type=click.FloatRange(0.5, 3600),
    default=CLAIM_SECONDS,
    show_default=True,
    help="After this long, others take over what a killed worker had.",
)
def command(
    paths: tuple[Path, ...],
    store: str,
    url: str,
    key: str | None,
    strict: bool,
    watch: bool,
    claim_seconds: float,
) -> None:
    """Embed the pages of PDFs, images, texts and Office files, and store them.

    Folders are read with all that is below them. Can be stopped and started at any moment; pages
    that are stored already cost nothing. What happens is also in logs/worker_ingestion.log.
    """
    _log_to_file()
    with Client(url, key, attempts=ATTEMPTS) as client:
        resizing = client.info().get("resizing")
        opened = open_store(store)
        grid = PageResizing(**resizing) if resizing else None
        worker = Worker(opened, client, grid, claim_seconds=claim_seconds)
        failed = _ingest(worker, list(paths))
        if watch:
            _keep_in_step(worker, list(paths))
        opened.close()
    sys.exit(1 if failed and strict else 0)


def _ingest(worker: Worker, paths: list[Path]) -> int:
    with tqdm(total=0, unit=" pages", dynamic_ncols=True) as progress:

        def on_pages(count: int) -> None:
            if count < 0:
                progress.total = (progress.total or 0) - count
                progress.refresh()
            else:
                progress.update(count)

        outcomes = list(worker.ingest(documents(paths), on_pages))
    _tell(outcomes)
    return sum(outcome.error is not None for outcome in outcomes)


def _tell(outcomes: list[Outcome]) -> None:
    stored = sum(outcome.stored for outcome in outcomes)
    there = sum(outcome.skipped for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.error]
    click.echo(f"{stored} pages stored; {there} documents were there already")
    for outcome in failed:
        click.echo(f"failed: {outcome.document}: {outcome.error}", err=True)


def _keep_in_step(worker: Worker, paths: list[Path]) -> None:
    for _ in _changes(paths):
        for name in worker.forget_missing([path for path in paths if path.is_dir()]):
            click.echo(f"removed: {name}")
        _ingest(worker, [path for path in paths if path.exists()])


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

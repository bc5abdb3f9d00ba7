"""`pagevec ingest`: documents into a store."""

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import httpx
from tqdm import tqdm

from pagevec.client import Client
from pagevec.commands import with_ca, with_passwords
from pagevec.ingest.catalogue import Removal
from pagevec.ingest.leases import LEASE_SECONDS
from pagevec.ingest.sources import find_documents
from pagevec.ingest.watch import watch_documents
from pagevec.ingest.worker import Outcome
from pagevec.search.index import Index, Report
from pagevec.stores import DEFAULT_STORE
from pagevec.terminal import LineFormatter, echo, show_json

# Tries of a request that fails: an ingestion of hours outlives a service that stumbles.
ATTEMPTS = 8

_RETRY_SECONDS = 10.0
_END_SECONDS = 1.0


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
@with_ca
@click.option(
    "--as",
    "label",
    metavar="LABEL",
    help="First part of the documents' names; default: their folder's own name.",
)
@with_passwords
@click.option(
    "--prune", is_flag=True, help="Remove documents that came from PATHS and are gone there."
)
@click.option("--strict", is_flag=True, help="Exit code 1 if a document or a page failed.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of documents as JSON.")
@click.option(
    "--follow-links", is_flag=True, help="Follow links in a folder that lead out of it, too."
)
@click.option("--watch", is_flag=True, help="Go on: keep the store in step with PATHS.")
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
    ca: Path | None,
    label: str | None,
    passwords: tuple[str, ...],
    more_passwords: tuple[str, ...],
    prune: bool,
    strict: bool,
    as_json: bool,
    follow_links: bool,
    watch: bool,
    lease_seconds: float,
) -> None:
    """Embed the pages of PDFs, pictures, texts and Office files, and store them.

    Folders are read with all that is below them. A document is called LABEL/path below its folder,
    where LABEL is the folder's own name; a folder that has moved is recognised by its documents.
    Ingestion can be stopped and started at any moment; pages that are stored already cost nothing.
    A page that cannot be read costs that page. What happens is also in STORE/logs/ingestion.log.
    """
    known = passwords + more_passwords
    find_documents(paths)  # names all paths at fault before the first page
    with (
        Client(url, key, attempts=ATTEMPTS, ca=ca) as client,
        Index(store, client, lease_seconds=lease_seconds, passwords=known) as index,
    ):
        _log_to_file(store)
        if watch:
            _watch(index, paths, label, follow_links, as_json)
            return
        report = _update(index, paths, label, follow_links, as_json, prune)
    sys.exit(1 if report.failed and strict else 0)


def _update(
    index: Index,
    paths: tuple[Path, ...],
    label: str | None,
    follow_links: bool,
    as_json: bool,
    prune: bool,
) -> Report:
    """Add what is there; then remove what is gone, because it may only have another name now."""
    with tqdm(total=0, unit=" pages", dynamic_ncols=True, disable=None) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        there = [path for path in paths if path.exists()] if prune else paths
        report = (
            index.add(there, label=label, follow_links=follow_links, on_progress=show)
            if there
            else Report(())
        )
    removal = index.prune(paths) if prune else Removal(())
    if as_json:
        click.echo(_as_json(report, removal))
    else:
        echo(*_as_lines(report, removal))
        for line in _complaints(report, removal):
            echo(line, err=True)
    return report


def _as_lines(report: Report, removal: Removal) -> list[str]:
    skipped = len(report.skipped)
    lines = [
        f"{_count(report.pages_stored, 'page')} stored; "
        f"{_count(skipped, 'document')} {'was' if skipped == 1 else 'were'} there already"
    ]
    for one in report.outcomes:
        if one.same_as in report.renamed:
            lines.append(f"renamed: {one.same_as} is now {one.document}")
        elif one.same_as is not None:
            lines.append(f"same content: {one.document} has the pages of {one.same_as}")
    lines += [f"removed: {name}" for name in removal.removed]
    return lines


def _complaints(report: Report, removal: Removal) -> Iterator[str]:
    yield from report.passed_over
    yield from removal.doubtful
    for outcome in report.outcomes:
        yield from (f"warning: {outcome.document}: {warning}" for warning in outcome.warnings)
    for outcome in report.failed:
        yield f"{_kind(outcome)}: {outcome.document}: {outcome.error}"


def _kind(outcome: Outcome) -> str:
    return (
        "incomplete" if outcome.faults and len(outcome.faults) < (outcome.pages or 0) else "failed"
    )


def _as_json(report: Report, removal: Removal) -> str:
    content = {
        "pages_stored": report.pages_stored,
        "documents": [asdict(outcome) for outcome in report.outcomes],
        "passed_over": report.passed_over,
        "renamed": report.renamed,
        "removed": removal.removed,
        "doubtful": removal.doubtful,
    }
    return show_json(content)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _watch(
    index: Index, paths: tuple[Path, ...], label: str | None, follow_links: bool, as_json: bool
) -> None:
    """Keep the store in step with `paths` until a signal; nothing that happens meanwhile ends it.

    At the start, what will not pass by itself raises, such as a store of another model.
    """
    _end_at_signals()
    is_first, retry_at = True, math.inf
    try:
        for has_changed in watch_documents(paths):
            if not has_changed and time.monotonic() < retry_at:
                continue
            try:
                report = _update(index, paths, label, follow_links, as_json, prune=True)
                is_done = not any(outcome.is_temporary for outcome in report.failed)
            except Exception as error:
                if is_first and not _may_pass(error):
                    raise
                echo(f"pagevec: {error}", err=True)
                is_done = False
            is_first = False
            retry_at = math.inf if is_done else time.monotonic() + _RETRY_SECONDS
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _end_at_signals() -> None:
    """Let SIGINT and SIGTERM interrupt this thread, and end the process soon in any case."""
    signals, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)  # written to at once, whatever this thread waits for
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_end_soon, args=(signals,), daemon=True).start()


def _end_soon(signals: int) -> None:
    """End the process a moment after a signal; pages at work are lost, as if it were killed."""
    os.read(signals, 1)
    time.sleep(_END_SECONDS)
    os._exit(0)


def _may_pass(error: Exception) -> bool:
    """Whether the service is only away, or busy."""
    return isinstance(error, httpx.TransportError) or getattr(error, "status", 0) in (429, 503)


def _log_to_file(store: str) -> None:
    folder = Path(store) / "logs"
    if "://" in store:
        return
    try:
        folder.mkdir(exist_ok=True)
        handler = logging.FileHandler(folder / "ingestion.log", encoding="utf-8")
    except OSError as error:
        echo(f"no log is written: {error}", err=True)
        return
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("pagevec.ingest")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

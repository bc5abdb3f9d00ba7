"""`pagevec ingest`: documents into a store."""

import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pagevec.commands import (
    FAILED,
    Service,
    note,
    progress_bar,
    with_condense,
    with_output,
    with_passwords,
    with_service,
    with_store,
)
from pagevec.commands.ingested import complaints, report_as_json, report_as_lines
from pagevec.commands.interrupts import INTERRUPTED, interruptible, report_when_interrupted
from pagevec.errors import NoStore
from pagevec.ingest import LEASE_SECONDS
from pagevec.secrets import mask_secrets
from pagevec.stores import folder_of, is_service
from pagevec.terminal import LineFormatter, count, echo

if TYPE_CHECKING:
    from pagevec.client import Client
    from pagevec.search.index import Index
    from pagevec.search.results import Report

# Tries of a request that fails: an ingestion of hours outlives a service that stumbles.
ATTEMPTS = 8

_RETRY_SECONDS = 10.0


def _take_former_option(
    ctx: click.Context, _option: click.Parameter, seconds: float | None
) -> None:
    if seconds is not None:
        click.echo("warning: --claim-seconds is deprecated: write --lease-seconds", err=True)
        ctx.params["lease_seconds"] = seconds


class _PathOrAddress(click.Path):
    """The path of a file or folder, or an address such as `s3://bucket/reports`, which is text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pagevec.ingest.addresses import is_address

        is_text = isinstance(value, str) and is_address(value)
        return value if is_text else super().convert(value, param, ctx)


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True, type=_PathOrAddress(path_type=Path))
@with_store
@with_service
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
@with_condense
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
@with_output
@interruptible
def command(
    paths: tuple[Path | str, ...],
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
    condense: float | None,
    watch: bool,
    lease_seconds: float,
) -> None:
    """Embed the pages of PDFs, pictures, texts and Office files, and store them.

    PATHS are files, folders, and addresses that fsspec knows, such as s3://bucket/reports. Folders
    are read with all that is below them. A document is called LABEL/path below its folder,
    where LABEL is the folder's own name; a folder that has moved is recognised by its documents.
    Ingestion can be stopped and started at any moment; pages that are stored already cost nothing.
    A page that cannot be read costs that page. What happens is also in STORE/logs/ingestion.log.

    A service that has the store is sent the files, and embeds them itself.
    """
    from pagevec.ingest.sources import find_documents
    from pagevec.search.results import as_places

    files = [place for place in as_places(paths) if isinstance(place, Path)]
    if watch and len(files) < len(paths):
        raise click.UsageError(
            "--watch needs files and folders of this machine: nothing tells of changes at an "
            "address (run this again now and then: what has not changed is not fetched)"
        )
    options: dict[str, Any] = {}
    if passwords or more_passwords:
        options["passwords"] = passwords + more_passwords
    if lease_seconds != LEASE_SECONDS:
        options["lease_seconds"] = lease_seconds
    if condense is not None:
        options["condense"] = condense
    if is_service(store):
        _refuse_for_service(options, prune, watch)
    find_documents(files)  # names all paths at fault before the first page
    service = Service.behind(store, url, key, ca)
    if watch:
        report_when_interrupted(lambda: "stopped", {signal.SIGINT: INTERRUPTED, signal.SIGTERM: 0})
    with (
        _connect(service, patiently=watch) as client,
        _open_index(store, client, options) as index,
    ):
        _log_to_file(store)
        ingestion = _Ingestion(index, paths, label, follow_links, as_json)
        if watch:
            ingestion.watch()
        else:
            report = ingestion.update(prune, report_when_interrupted)
            sys.exit(FAILED if report.failed and strict else 0)


def _connect(service: Service, patiently: bool) -> "Client":
    """Return a client of the service; `patiently`: once it answers, however late that is."""
    from pagevec.client.faults import Unreachable

    is_first = True
    while True:
        try:
            return service.connect(attempts=ATTEMPTS)
        except Unreachable as error:
            if not patiently:
                raise
            if is_first:
                note(f"waiting: {error}")
            is_first = False
        time.sleep(_RETRY_SECONDS)


def _refuse_for_service(options: Mapping[str, Any], prune: bool, watch: bool) -> None:
    """Refuse what makes sense only where the store is opened by this command."""
    if prune or watch:
        raise click.UsageError(
            f"{'--watch' if watch else '--prune'} needs a store of this machine: a service keeps "
            "the files itself, and does not know which of yours are gone (`pagevec remove` removes "
            "documents by their names)"
        )
    if "passwords" in options:
        raise click.UsageError("a service is sent no passwords: add such documents without them")
    if options:
        named = "--condense" if "condense" in options else "--lease-seconds"
        raise click.UsageError(f"{named} is for a store that this command opens itself")


def _open_index(store: str, client: "Client", options: Mapping[str, Any]) -> "Index":
    from pagevec.search.index import Index

    if is_service(store):
        return Index(client)
    try:
        return Index(store, client, create=False, **options)
    except NoStore:
        index = Index(store, client, **options)
        note(f"made a new store: {mask_secrets(store)}")
        return index


@dataclass(frozen=True)
class _Ingestion:
    """What is kept in step: documents below `paths`, and the pages of `index`."""

    index: "Index"
    paths: tuple[Path | str, ...]
    label: str | None
    follow_links: bool
    as_json: bool

    def update(
        self, prune: bool, on_start: Callable[[Callable[[], str]], None] = lambda report: None
    ) -> "Report":
        """Add what is there; then remove what is gone, because it may only have another name now.

        Args:
            prune: whether anything is removed.
            on_start: is handed what says how far this came.
        """
        from pagevec.ingest.catalogue import Removal
        from pagevec.search.results import Report

        with progress_bar("pages", total=0) as progress:
            on_start(lambda: _describe_interrupted(int(progress.n), int(progress.total or 0)))

            def show(done: int, total: int) -> None:
                progress.total, before = total, progress.n
                progress.update(done - before)
                progress.n = done  # a hidden bar does not count

            there = [one for one in self.paths if not prune or _may_be_there(one)]
            options: dict[str, Any] = {"label": self.label, "follow_links": self.follow_links}
            report = self.index.add(there, on_progress=show, **options) if there else Report(())
        removal = self.index.prune(self.paths) if prune else Removal(())
        if self.as_json:
            click.echo(report_as_json(report, removal))
        else:
            echo(*report_as_lines(report, removal))
        note(*report.passed_over)
        for line in complaints(report, removal):
            echo(line, err=True)
        return report

    def watch(self) -> None:
        """Keep the store in step until a signal; nothing that happens meanwhile ends it.

        At the start, what will not pass by itself raises, such as a store of another model.
        """
        from pagevec.ingest.watch import watch_documents

        is_first, retry_at = True, math.inf
        for has_changed in watch_documents([one for one in self.paths if isinstance(one, Path)]):
            if not has_changed and time.monotonic() < retry_at:
                continue
            try:
                report = self.update(prune=True)
                is_done = not any(outcome.is_temporary for outcome in report.failed)
            except Exception as error:
                if is_first and not _may_pass(error):
                    raise
                echo(f"pagevec: {error}", err=True)
                is_done = False
            is_first = False
            retry_at = math.inf if is_done else time.monotonic() + _RETRY_SECONDS


def _may_be_there(path: Path | str) -> bool:
    return isinstance(path, str) or path.exists()  # an address is looked at when it is listed


def _describe_interrupted(done: int, known: int) -> str:
    return (
        f"interrupted: {done:,} of {count(known, 'page')} are stored; "
        "the same command goes on from there"
    )


def _may_pass(error: Exception) -> bool:
    """Whether the service is only away, or busy."""
    import httpx

    return isinstance(error, httpx.TransportError) or getattr(error, "status", 0) in (429, 503)


def _log_to_file(store: str) -> None:
    of_store = folder_of(store)
    if of_store is None:
        return
    folder = of_store / "logs"
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

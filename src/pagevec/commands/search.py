"""`pagevec search`: a query in words, the pages that answer it."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

import click

from pagevec.commands import (
    PATIENCE,
    Service,
    note,
    progress_bar,
    with_output,
    with_service,
    with_store,
)
from pagevec.commands.interrupts import interruptible
from pagevec.errors import PagevecError
from pagevec.stores import is_service
from pagevec.terminal import count, echo, show_json

if TYPE_CHECKING:
    from pagevec.client import Client
    from pagevec.search.index import Index
    from pagevec.search.results import Hit
    from pagevec.types import Fusion, Model, Query

_DRAWN = ".pagevec-maps"  # names of the maps that a search has drawn into a folder
_MAP = re.compile(r"\d{2,}-.*-\d+\.jpg", re.DOTALL)
_STEM_BYTES = 100  # of a file name; file systems take 255 for all of it


@click.command("search")
@click.argument("query")
@with_store
@with_service
@click.option("-k", "most", type=click.IntRange(1), default=10, show_default=True, help="Hits.")
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
@click.option("--no-text", is_flag=True, help="Find pages by their vectors alone, not by words.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Weight of the vectors; the words of text layers have the rest.",
)
@click.option(
    "--fusion",
    type=click.Choice(["relative", "rrf"]),
    default="relative",
    show_default=True,
    help="Bring both together by their scores, or by their places (reciprocal rank fusion).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON list of hits.")
@click.option(
    "--maps",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw into this folder where each word of QUERY finds its answer, in place of the maps of "
    "an earlier search.",
)
@with_output
@interruptible
def command(
    query: str,
    store: str,
    url: str,
    key: str | None,
    ca: Path | None,
    most: int,
    documents: tuple[str, ...],
    where: tuple[str, ...],
    no_text: bool,
    alpha: float,
    fusion: "Fusion",
    as_json: bool,
    maps: Path | None,
) -> None:
    """Search the pages of a store for QUERY, by late interaction (MaxSim) and by words."""
    metadata = dict(map(_read_condition, where))
    with _open(store, Service.behind(store, url, key, ca), query) as (index, client):
        hits = index.search(
            query,
            most,
            documents=documents,
            metadata=metadata,
            text=not no_text,
            alpha=alpha,
            fusion=fusion,
        )
        if as_json:
            click.echo(_as_json(hits))
        else:
            echo(*_as_lines(hits))
            notice = client.info().notice
            note(*([notice] if notice else []))
        if maps is not None:
            _draw_maps(hits, maps)


@contextmanager
def _open(store: str, service: Service, query: str) -> Iterator[tuple["Index", "Client"]]:
    """Open an index, with the client of the service that has it or embeds for it."""
    # A search multiplies small matrices: OpenBLAS's own threads, which numpy starts when it is
    # imported, only wait for work, spinning, and take the cores from it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if is_service(store):
        from pagevec.search.index import Index

        with service.connect(patience=PATIENCE) as client, Index(client) as index:
            yield index, client
        return
    asked = _AskedAhead(service, query)
    from pagevec.machine import thread_pool
    from pagevec.stores import open_store

    with open_store(store, create=False) as opened:
        thread_pool("pagevec-prepare", 1).submit(opened.prepare)  # its errors are the search's, too
        from pagevec.search.index import Index

        with asked.client as client, Index(opened, cast("Model", asked)) as index:
            yield index, client


class _AskedAhead:
    """The client of a service that embeds for a search, and is asked for its query at once.

    The answer comes while this process imports what searches, and opens the store.

    Args:
        service: to ask.
        query: in words.
    """

    def __init__(self, service: Service, query: str) -> None:
        self._client, self._answer = Future["Client"](), Future["Query"]()
        # Nobody waits for it where the store cannot be opened.
        Thread(target=self._ask, args=(service, query), daemon=True).start()

    @property
    def client(self) -> "Client":
        """The client, connected; raises what that raises."""
        return self._client.result()

    def embed_query_with_tokens(self, text: str) -> "Query":
        """Return the vectors of the query that was asked for."""
        return self._answer.result()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def _ask(self, service: Service, query: str) -> None:
        try:
            client = service.connect(patience=PATIENCE, resize=False)  # without Pillow
            self._client.set_result(client)
            self._answer.set_result(client.embed_query_with_tokens(query))
        except BaseException as error:  # raised again where the answer is needed
            for waiting in (self._client, self._answer):
                if not waiting.done():
                    waiting.set_exception(error)


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


def _as_json(hits: Sequence["Hit"]) -> str:
    rows = [
        {
            "document": hit.document,
            "page": hit.page,
            "score": round(hit.score, 4),
            "relevance": round(hit.relevance, 6),
            "found_by": list(hit.found_by),
            "found_words": list(hit.found_words),
            "metadata": dict(hit.metadata),
            **({"error": hit.error} if hit.error else {}),
        }
        for hit in hits
    ]
    return show_json(rows)


def _as_lines(hits: Sequence["Hit"]) -> list[str]:
    rows = [f"{hit.score:8.3f}  {hit.document}, page {hit.page}{_remark(hit)}" for hit in hits]
    return rows or ["no pages"]


def _remark(hit: "Hit") -> str:
    words = f"  [{', '.join(hit.found_words)}]" if hit.found_words else ""
    return f"{words}  ({hit.error})" if hit.error else words


def _draw_maps(hits: Sequence["Hit"], folder: Path) -> None:
    """Draw for each hit a map of the whole query, and one for each of its words."""
    _remove_maps(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    with progress_bar("maps", total=len(hits)) as progress, (folder / _DRAWN).open("w") as names:
        for rank, hit in enumerate(hits, start=1):
            stem = Path(hit.document).stem.encode()[:_STEM_BYTES].decode(errors="ignore")
            file = folder / f"{rank:02}-{stem}-{hit.page}.jpg"
            print(json.dumps(file.name), file=names, flush=True)
            try:
                hit.maps().save(hit.picture(), file)
                drawn += 1
            except (PagevecError, OSError) as error:  # costs this map, not the others
                echo(f"no map of {_describe(hit, error)}", err=True)
            progress.update()
    if drawn:
        note(f"maps of {count(drawn, 'page')} are in {folder}")


def _describe(hit: "Hit", error: Exception) -> str:
    name, said = f"{hit.document}, page {hit.page}", str(error)
    return said if said.startswith(name) else f"{name}: {said}"


def _remove_maps(folder: Path) -> None:
    """Remove the maps of an earlier search, and nothing else that may be in `folder`."""
    try:
        names = [Path(json.loads(line)).name for line in (folder / _DRAWN).open()]
    except (OSError, ValueError, TypeError):
        return
    for name in filter(_MAP.fullmatch, names):  # whoever may write into `folder` chooses them
        whole = folder / name
        words = whole.with_suffix("")
        of_words = [] if words.is_symlink() else list(words.glob("*.jpg"))
        for file in [whole, *of_words]:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            words.rmdir()

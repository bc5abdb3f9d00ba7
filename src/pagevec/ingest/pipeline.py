"""The pages of one document on their way: made, embedded and stored ahead of each other.

Whatever happens to one page costs that page. Its fault is a sentence, and the other pages go on.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Event
from typing import TypeVar

import httpx
import numpy as np

from pagevec.errors import DocumentError, PagevecError
from pagevec.grid import PageResizing
from pagevec.ingest.boundary import interrupt_readers
from pagevec.ingest.page import Pages, SourcePage, page_to_store
from pagevec.machine import thread_pool
from pagevec.stores.base import Store
from pagevec.stores.condense import OFF, condense_page
from pagevec.types import Model, Page

T = TypeVar("T")

# Pages of one request and of one transaction: a killed worker loses no more than these.
_BATCH = 8
_FAULTS_SHOWN = 3


@dataclass(frozen=True)
class PageFault:
    """A page that could not be stored, and why.

    Attributes:
        number: of the page.
        reason: a sentence.
        is_left_out: whether nothing is wrong with the page: it was not begun.
    """

    number: int
    reason: str
    is_left_out: bool = False


@dataclass(frozen=True)
class Batch:
    """Some pages of a document, embedded.

    Attributes:
        pages: those that can be stored.
        faults: those that cannot.
        warnings: what a user should know about the pages, each with its page.
    """

    pages: tuple[Page, ...]
    faults: tuple[PageFault, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredPages:
    """What became of pages.

    Attributes:
        stored: how many were stored.
        faults: those that were not.
        warnings: what a user should know about those that were, each with its page.
    """

    stored: int
    faults: tuple[PageFault, ...]
    warnings: tuple[str, ...]


def store_pages(
    store: Store,
    batches: Generator[Batch, None, None],
    begin: Callable[[], object],
    on_done: Callable[[int], object],
) -> StoredPages:
    """Store the pages of a document.

    Args:
        store: takes the pages.
        batches: of `embed_in_batches`; closed in the end.
        begin: called before the first page is stored.
        on_done: called with how many pages are stored or have failed, as they are.

    Raises:
        PagevecError: the model or the store does not answer; pages stored until then stay.
    """
    stored, faults, warnings = 0, list[PageFault](), list[str]()
    with closing(batches):
        for batch in batches:
            if batch.pages and not stored:
                begin()
            failed = [*batch.faults, *_add_or_blame(store, batch.pages)]
            done = len(batch.pages) + len(batch.faults)
            stored += done - len(failed)
            faults += sorted(failed, key=lambda fault: fault.number)
            warnings += batch.warnings
            on_done(done)
    return StoredPages(stored, tuple(faults), tuple(warnings))


def embed_in_batches(
    model: Model,
    name: str,
    pages: Pages,
    numbers: Sequence[int],
    resizing: PageResizing | None,
    is_stopped: Callable[[], bool] = lambda: False,
    threshold: float = OFF,
) -> Generator[Batch, None, None]:
    """Make and embed the pages of a document that have these numbers, in order.

    Args:
        model: embeds them.
        name: of the document.
        pages: makes them.
        numbers: which pages.
        resizing: how the model resizes pages, from which follows each page's patch grid.
        is_stopped: once it returns True, no page is made any more.
        threshold: the cosine from which on near-duplicate vectors of a page are kept once.

    Raises:
        PagevecError: the model does not answer.
    """
    over = Event()

    def make(batch: Sequence[int]) -> list[SourcePage | PageFault]:
        return [_make_one(pages, one, over.is_set() or is_stopped()) for one in batch]

    def embed(made: Future[list[SourcePage | PageFault]]) -> Batch:
        return _embed_or_blame(model, name, made.result(), resizing)

    with (
        ThreadPoolExecutor(1, "pagevec-render") as rendering,
        ThreadPoolExecutor(2, "pagevec-embed") as embedding,
        stopping(over),
    ):
        some = (numbers[i : i + _BATCH] for i in range(0, len(numbers), _BATCH))
        making = (rendering.submit(make, batch) for batch in some)
        # By one thread for all documents: each thread keeps memory for it, some 20 MB.
        condense = partial(condense_page, threshold=threshold)
        for batch in run_in_order(embedding, (partial(embed, made) for made in making), ahead=3):
            smaller = thread_pool("pagevec-condense", 1).map(condense, batch.pages)
            yield replace(batch, pages=tuple(smaller))


@contextmanager
def stopping(stopped: Event) -> Iterator[None]:
    """Set `stopped` if the block ends early; ctrl-C does not wait for the pages at hand either."""
    try:
        yield
    except BaseException as error:
        stopped.set()
        if isinstance(error, KeyboardInterrupt):
            interrupt_readers()
        raise


def is_of_the_service(error: Exception) -> bool:
    """Whether an error has nothing to do with the input: another try may succeed, or none will."""
    if isinstance(error, PagevecError):
        is_of_input = error.index is not None or error.status in (400, 413)
        return not is_of_input and not isinstance(error, DocumentError)
    return isinstance(error, httpx.HTTPError)


def describe_faults(pages: int, faults: Sequence[PageFault]) -> str | None:
    """Return a sentence on the pages, of so many, that are missing; None if none is."""
    if not faults:
        return None
    shown = "; ".join(fault.reason for fault in faults[:_FAULTS_SHOWN])
    more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    return f"{pages - len(faults)} of {pages} pages are stored; {shown}{more}"


def embed_pages(
    model: Model, name: str, sources: Sequence[SourcePage], resizing: PageResizing | None
) -> list[Page]:
    """Embed pages of one document, all images or all texts.

    Args:
        model: embeds them.
        name: of the document.
        sources: the pages.
        resizing: how the model resizes pages, from which follows each page's patch grid.

    Returns:
        A page to store for each of `sources`, in order; vectors float32 (vectors, dim), of a page
        in tiles those of its tiles one after another.
    """
    texts = [source.content for source in sources if isinstance(source.content, str)]
    if texts:
        vectors = model.embed_texts(texts)
    else:
        parts = [source.tiles or (source.content,) for source in sources]
        embedded = iter(model.embed_images([image for part in parts for image in part]))
        vectors = [np.concatenate(list(islice(embedded, len(part)))) for part in parts]
    return [
        page_to_store(name, source, one, resizing)
        for source, one in zip(sources, vectors, strict=True)
    ]


def run_in_order(pool: Executor, tasks: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """Yield the results of `tasks` in their order, with up to `ahead` of them in `pool`.

    `tasks` is read only as far as it is worked on, so memory stays bounded. What a task raises is
    raised in its place, after the tasks behind it were cancelled. Tasks run in the context of the
    caller, to which a trace belongs.
    """
    running: deque[Future[T]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(copy_context().run, task))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _make_one(pages: Pages, number: int, is_stopped: bool) -> SourcePage | PageFault:
    if is_stopped:
        reason = f"page {number} is left out: the ingestion was interrupted"
        return PageFault(number, reason, is_left_out=True)
    try:
        return pages.make(number)
    except PagevecError as error:
        return PageFault(number, error.message)
    except Exception as error:
        return PageFault(number, f"page {number}: {type(error).__name__}: {error}")


def _embed_or_blame(
    model: Model,
    name: str,
    sources: Sequence[SourcePage | PageFault],
    resizing: PageResizing | None,
) -> Batch:
    good = [source for source in sources if isinstance(source, SourcePage)]
    faults = tuple(one for one in sources if isinstance(one, PageFault))
    warnings = tuple(f"page {one.number}: {said}" for one in good for said in one.warnings)
    if not good:
        return Batch((), faults)
    try:
        return Batch(tuple(embed_pages(model, name, good, resizing)), faults, warnings)
    except Exception as error:
        if is_of_the_service(error):
            raise
    # One of them is to blame: the others shall not share its fate.
    tried = [_embed_one(model, name, source, resizing) for source in good]
    return Batch(
        tuple(one for one in tried if isinstance(one, Page)),
        (*faults, *(one for one in tried if isinstance(one, PageFault))),
        warnings,
    )


def _embed_one(
    model: Model, name: str, source: SourcePage, resizing: PageResizing | None
) -> Page | PageFault:
    try:
        return embed_pages(model, name, [source], resizing)[0]
    except Exception as error:
        if is_of_the_service(error):
            raise
        reason = error.message if isinstance(error, PagevecError) else repr(error)
        return PageFault(source.number, f"page {source.number} cannot be embedded: {reason}")


def _add_or_blame(store: Store, pages: Sequence[Page]) -> list[PageFault]:
    """Store `pages`, and return the faults of those that the store refuses.

    Raises:
        PagevecError: it takes none of them.
    """
    try:
        store.add(pages)
        return []
    except Exception:
        if len(pages) < 2:
            raise
    faults: list[PageFault] = []
    for page in pages:
        try:
            store.add([page])
        except Exception as error:
            if len(faults) == len(pages) - 1:
                raise
            number = page.key.number
            faults.append(PageFault(number, f"page {number} cannot be stored: {error}"))
    return faults

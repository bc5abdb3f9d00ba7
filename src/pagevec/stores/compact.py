"""Condense the pages of a store that has them whole: page by page, beside who reads and writes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pagevec.errors import InvalidRequest
from pagevec.stores.base import Store
from pagevec.stores.condense import OFF, condense_page
from pagevec.types import Page, PageKey, Progress

_BATCH = 4
"""Pages of one transaction, during which other writers wait: a tenth of a second."""
_WORKER = "compact"
"""Who leases documents: one that was killed goes on without waiting."""
OF_OTHERS = "another program wrote it"
"""Why a document is left as it is for good."""
_LEASE_SECONDS = 60.0  # renewed with each batch


@dataclass
class Compacted:
    """What was done.

    Attributes:
        pages: how many pages were condensed.
        before: how many vectors these had.
        after: how many they have.
        already: how many pages were condensed before.
        left: why a document was left as it is, by its name.
    """

    pages: int = 0
    before: int = 0
    after: int = 0
    already: int = 0
    left: dict[str, str] = field(default_factory=dict)


def compact(
    store: Store, threshold: float, on_progress: Progress = lambda done, total: None
) -> Compacted:
    """Keep near-duplicate vectors of all pages once, and of those that come later.

    Whatever stops it, start it again: pages that are condensed stay as they are. A document that
    another worker is writing is left for the next time; so are pages of other programs for ever.

    Args:
        store: other processes may read and write it meanwhile.
        threshold: the cosine from which on a vector stands for another.
        on_progress: called with the pages that are done, and all that there are.

    Raises:
        InvalidRequest: the threshold is `OFF`, which brings no vectors back.
        StoreError: the store cannot be read or written.
    """
    if threshold >= OFF:
        raise InvalidRequest("vectors that were dropped do not come back: give a cosine below 1")
    store.save_condensing(threshold)  # first, so that what is added meanwhile is condensed, too
    done, passed, counts = Compacted(), 0, store.documents()
    total = sum(counts.values())
    on_progress(0, total)

    def change(page: Page) -> Page:
        smaller = condense_page(page, threshold)
        if smaller is page:
            done.already += 1
        else:
            done.pages += 1
            done.before += len(page.vectors)
            done.after += len(smaller.vectors)
        return smaller

    for name, pages in sorted(counts.items()):
        if store.ledger.record(name) is None:
            done.left[name] = OF_OTHERS
        elif not store.ledger.lease(name, _WORKER, _LEASE_SECONDS):
            done.left[name] = "another worker is writing it: start this again later"
        else:
            try:
                for so_far in _compact_document(store, name, change):
                    on_progress(passed + so_far, total)
            finally:
                store.ledger.release(name, _WORKER)
        passed += pages
        on_progress(passed, total)
    return done


def _compact_document(store: Store, name: str, change: Callable[[Page], Page]) -> Iterator[int]:
    """Condense the pages of a document, and yield after each step how many are done."""
    numbers = sorted(store.has(name))
    for first in range(0, len(numbers), _BATCH):
        store.ledger.lease(name, _WORKER, _LEASE_SECONDS)
        batch = numbers[first : first + _BATCH]
        store.revise([PageKey(name, number) for number in batch], change)
        yield first + len(batch)

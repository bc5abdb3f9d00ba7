"""Are a store's pages and these vectors of one model? Told by a text whose vectors the store keeps.

Names do not tell: one checkpoint is served from a hub's name here and from a folder there, and a
folder's content may have changed.
"""

import numpy as np

from pagevec.errors import StoreError
from pagevec.stores.base import Store
from pagevec.types import MultiVector

PROBE_TEXT = "which model made these vectors?"
_SAME = 0.98
"""Mean cosine from here on is one model: int8 has 0.9995, a model trained further 0.75."""


def agree_on_model(store: Store, made: MultiVector) -> None:
    """Let `store` keep `made`, the vectors of PROBE_TEXT, unless it has pages of a known model.

    Raises:
        StoreError: it has, and of another one.
    """
    store.keep_probe(made)
    check_model(store, made)


def check_model(store: Store, made: MultiVector) -> None:
    """Compare `made`, the vectors of PROBE_TEXT, with those that `store` keeps, if it does.

    Raises:
        StoreError: the pages are of another model.
    """
    kept = store.probe()
    if kept is not None and not _alike(kept, made):
        raise StoreError(
            "the pages of this store were embedded by another model than the one that answers"
            " now: ask a service with that model, or ingest into a new store"
        )


def _alike(kept: MultiVector, made: MultiVector) -> bool:
    return kept.shape == made.shape and float(np.mean((kept * made).sum(axis=1))) >= _SAME

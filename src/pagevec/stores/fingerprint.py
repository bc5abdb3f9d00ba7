"""Keeps models from being mixed in a store, by the fingerprint of the model behind its pages.

A model's fingerprint is its embedding of a fixed text. The model's name would not do: the same
checkpoint may be served under a hub's name or from a folder, and a folder's content may change.
"""

import numpy as np

from pagevec.errors import OtherModel
from pagevec.stores.base import Store, other_dimension
from pagevec.types import MultiVector

FINGERPRINT_TEXT = "which model made these vectors?"
_SAME_MODEL = 0.98
"""Mean cosine from which on two fingerprints are of one model.

Measured: 0.9995 between float32 and int8 products, 0.75 after further training.
"""


def agree_on_model(store: Store, vectors: MultiVector) -> None:
    """Let only one model's pages into `store`: call this before adding pages.

    Args:
        store: saves `vectors` as its fingerprint, unless it has pages and a fingerprint.
        vectors: the model's embedding of FINGERPRINT_TEXT, float32 (vectors, dim).

    Raises:
        OtherModel: the pages of the store are of another model.
    """
    store.save_fingerprint(vectors)
    check_model(store, vectors)


def check_model(store: Store, vectors: MultiVector) -> None:
    """Compare a model's fingerprint with that of `store`, if it has one.

    Args:
        store: the store that the model is to search.
        vectors: the model's embedding of FINGERPRINT_TEXT, float32 (vectors, dim).

    Raises:
        OtherModel: the pages of the store are of another model.
    """
    saved = store.fingerprint()
    if saved is None:
        return
    if saved.shape[1] != vectors.shape[1]:
        raise other_dimension(saved.shape[1], vectors.shape[1])
    if not _is_same_model(saved, vectors):
        raise OtherModel(
            "the pages of this store were embedded by another model than the one in use: "
            "use the model of these pages, or ingest into a new store"
        )


def _is_same_model(saved: MultiVector, vectors: MultiVector) -> bool:
    if saved.shape != vectors.shape:
        return False
    return float(np.mean((saved * vectors).sum(axis=1))) >= _SAME_MODEL

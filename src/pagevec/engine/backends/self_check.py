"""The self-check of a start: a first page and query, through the packed pass and the padded one."""

import base64
from typing import Any

from pagevec.engine.backends.base import Backend, read_hints
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.backends.padded import PaddedBackend
from pagevec.engine.models.files import describe
from pagevec.images import read_image
from pagevec.samples import TEXTS, draw_mosaic
from pagevec.types import MultiVector

LEAST_COSINE = 0.99
"""Mean cosine of two passes over the same weights, or of one in two dtypes, that rounding explains.

Between bfloat16 passes of the 3B architecture it is above 0.999; a wrong sign of one rotary
embedding leaves less than 0.9.
"""
# Several windows of the vision tower, not all of them whole, and more columns than rows.
_ROWS, _COLUMNS = 5, 9


def find_fault(packed: PackedBackend, padded: PaddedBackend) -> str | None:
    """Say what is wrong with the packed pass; None if it gives the padded one's vectors.

    Raises:
        Exception: the memory does not suffice, or the padded pass fails as well.
    """
    try:
        ours = embed_samples(packed)
    except Exception as error:
        if read_hints(packed).device.is_out_of_memory(error):
            raise
        embed_samples(padded)  # raises as well if the model is at fault, or the device
        return f"failed with {describe(error)}"
    of_page, of_query = mean_cosines(ours, embed_samples(padded))
    if min(of_page, of_query) >= LEAST_COSINE:
        return None
    return (
        "gives other vectors than colpali-engine's own: mean cosine "
        f"{of_page:.3f} for a page and {of_query:.3f} for a query, at least {LEAST_COSINE} is due"
    )


Samples = tuple[MultiVector, MultiVector]
"""The multi-vectors of a page and of a query."""


def embed_samples(backend: Backend[Any]) -> Samples:
    """Embed a page and a query, the same always."""
    image = read_image(base64.b64decode(draw_mosaic(_ROWS, _COLUMNS)))
    [page] = backend.forward([backend.prepare_page(image)])
    [query] = backend.forward(list(backend.prepare_texts(TEXTS[:1])))
    return page, query


def mean_cosines(some: Samples, others: Samples) -> tuple[float, float]:
    """Return the mean cosine of the page's vectors, and of the query's; 0 for other shapes."""
    of_page, of_query = (
        float((one * other).sum(axis=1).mean()) if one.shape == other.shape else 0.0
        for one, other in zip(some, others, strict=True)
    )
    return of_page, of_query

"""The self-check of a start: a first page and query, through the packed pass and the padded one."""

import base64
import logging
from typing import Any

from pagevec.engine.backends.base import Backend, read_hints
from pagevec.engine.backends.packed.backend import PackedBackend
from pagevec.engine.backends.padded import PaddedBackend
from pagevec.engine.models.files import describe, reading
from pagevec.engine.models.loader import LoadedModel
from pagevec.images import read_image
from pagevec.samples import TEXTS, draw_mosaic
from pagevec.types import MultiVector

log = logging.getLogger(__name__)

# Between bfloat16 passes of the 3B architecture it is above 0.999; a wrong sign of one rotary
# embedding leaves less than 0.9.
_LEAST_COSINE = 0.99
# Several windows of the vision tower, not all of them whole, and more columns than rows.
_ROWS, _COLUMNS = 5, 9


def choose_backend(loaded: LoadedModel, forward: str = "auto") -> Backend[Any]:
    """Return the backend that serves a loaded model, after its first page and query.

    Args:
        loaded: the model.
        forward: `packed`, `padded`, or `auto`: packed where the model's family allows it, unless
            its vectors differ from those of colpali-engine's own forward pass, which is the
            padded one.

    Raises:
        CheckpointError: the first page and query do not go through the model.
    """
    # What does not fit together in a checkpoint may load, and fail with the first input.
    with reading(f"a first text and page do not go through {loaded.info.model}"):
        if forward == "padded" or not loaded.family.packed:
            return _tried(PaddedBackend(loaded))
        packed = PackedBackend(loaded)
        if forward == "packed":
            return _tried(packed)
        fault = _find_fault(packed, PaddedBackend(loaded))
        if fault is None:
            return packed
        log.error("the packed forward pass %s: the padded one serves, which is slower", fault)
        return PaddedBackend(loaded, fallback=fault)


def _tried(backend: Backend[Any]) -> Backend[Any]:
    _embed_samples(backend)
    return backend


def _find_fault(packed: PackedBackend, padded: PaddedBackend) -> str | None:
    """Say what is wrong with the packed pass; None if it gives the padded one's vectors."""
    try:
        ours = _embed_samples(packed)
    except Exception as error:
        if read_hints(packed).device.is_out_of_memory(error):
            raise
        _embed_samples(padded)  # raises as well if the model is at fault, or the device
        return f"failed with {describe(error)}"
    cosines = [_mean_cosine(*pair) for pair in zip(ours, _embed_samples(padded), strict=True)]
    if min(cosines) >= _LEAST_COSINE:
        return None
    of_page, of_query = cosines
    return (
        "gives other vectors than colpali-engine's own: mean cosine "
        f"{of_page:.3f} for a page and {of_query:.3f} for a query, at least {_LEAST_COSINE} is due"
    )


def _embed_samples(backend: Backend[Any]) -> tuple[MultiVector, MultiVector]:
    """Return the multi-vectors of a page and of a query."""
    image = read_image(base64.b64decode(draw_mosaic(_ROWS, _COLUMNS)))
    [page] = backend.forward([backend.prepare_page(image)])
    [query] = backend.forward(list(backend.prepare_texts(TEXTS[:1])))
    return page, query


def _mean_cosine(some: MultiVector, others: MultiVector) -> float:
    return float((some * others).sum(axis=1).mean()) if some.shape == others.shape else 0.0

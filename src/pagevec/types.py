"""Values that every part of pagevec speaks of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pagevec.grid import PatchGrid

InputType = Literal["text", "image"]
"""The two kinds of input; one request carries one kind."""

MultiVector = NDArray[np.float32]
"""Late-interaction embedding of one input: float32, (vectors, dim), rows of unit length."""


@dataclass(frozen=True, order=True)
class PageKey:
    """A page, by its document and its number in it (from 1)."""

    document: str
    number: int


@dataclass(frozen=True, eq=False)
class Page:
    """A page as it is stored.

    Attributes:
        key: which page; vectors: float32 (vectors, dim), unit rows.
        metadata: what filters look at and hits carry: JSON values.
        text: the page's text layer or its own text, where it has one.
        thumbnail: a small JPEG of the page, where it has one.
        grid: where its visual tokens are in `vectors`, where that is known.
    """

    key: PageKey
    vectors: MultiVector
    metadata: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    thumbnail: bytes | None = None
    grid: PatchGrid | None = None


@dataclass(frozen=True)
class Hit:
    """A page that answers a query, and its exact MaxSim score."""

    key: PageKey
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DocumentRecord:
    """What a store's ledger knows of a document.

    Attributes:
        name: the document's name in page keys; content_hash: SHA-256 of the file, in hex.
        pages: how many pages it has; None until that is known.
        complete: whether all of them are stored.
        error: why it could not be ingested, where it failed.
    """

    name: str
    content_hash: str
    pages: int | None = None
    complete: bool = False
    error: str | None = None

"""Pages without end that lie as real ones do: real multi-vectors, moved by what tells them apart.

Random directions would be far too easy to tell apart, and pages of one kind far too hard. The page
of a document is taken whole, and each of its vectors is moved by a share of the difference between
a vector of some page and the nearest one of another page. Measured with 453 pages of Debian's
documents and 61 queries: among as many pages of either kind, the ten best by exact MaxSim are among
the first 20 by sign bits in 0.80 of all cases, among the first 50 in 0.96; the tenth best page is
1.82 standard deviations above the mean.
"""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import pagevec
from benchmarks.retrieval.real import DOCUMENTS, read_real_pages
from pagevec.types import MultiVector

_MOST = 760
_BATCH = 8
_SHARE = np.float32(0.4)
_THRESHOLD = 0.999
_PAIRS, _ROWS = 150, 50
_KINDS = ("page", "rows", "query")


@dataclass(frozen=True, eq=False)
class RealMultiVectors:
    """Real pages and queries, embedded.

    Attributes:
        pages: the distinct vectors of each page, float32 (vectors, dim).
        rows: for each visual token of a page the row that stands for it.
        queries: float32 (vectors, dim) each.
        texts: of the pages' text layers.
        words: of the queries.
    """

    pages: list[MultiVector]
    rows: list[NDArray[np.int32]]
    queries: list[MultiVector]
    texts: list[str]
    words: list[str]

    def save(self, file: Path) -> None:
        """Write all of it into an .npz file."""
        kinds: tuple[list[Any], ...] = (self.pages, self.rows, self.queries)
        parts: dict[str, Any] = {}
        for kind, values in zip(_KINDS, kinds, strict=True):
            parts |= {f"{kind}{number}": one for number, one in enumerate(values)}
        np.savez(file, texts=np.array(self.texts), words=np.array(self.words), **parts)

    @classmethod
    def load(cls, file: Path) -> "RealMultiVectors":
        """Read what `save` wrote."""
        with np.load(file) as saved:
            parts = {name: saved[name] for name in saved.files}
        counts = [
            sum(re.fullmatch(rf"{kind}\d+", name) is not None for name in parts) for kind in _KINDS
        ]
        pages, rows, queries = (
            [parts[f"{kind}{number}"] for number in range(count)]
            for kind, count in zip(_KINDS, counts, strict=True)
        )
        return cls(pages, rows, queries, parts["texts"].tolist(), parts["words"].tolist())


_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
REAL_OPTIONS = (
    click.Option(
        ["--documents"],
        type=_DIRECTORY,
        default=DOCUMENTS,
        show_default=True,
        help="Folder that is searched for the PDFs whose pages the others resemble.",
    ),
    click.Option(["--folder"], type=_DIRECTORY, help="Where the temporary folder of stores is."),
    click.Option(
        ["--embedded"],
        type=click.Path(dir_okay=False, path_type=Path),
        help="File (.npz) that keeps the embedded real pages for another run.",
    ),
)
"""What a benchmark with these pages is asked: the real ones, and where its stores are made."""


def find_real_pages(embedded: Path | None, documents: Path, scratch: Path) -> Path:
    """Return the file of the embedded real pages, which is made if it is missing."""
    file = embedded or scratch / "real.npz"
    if not file.exists():
        embed_real_pages(documents, scratch).save(file)
    return file


def embed_real_pages(documents: Path, scratch: Path) -> RealMultiVectors:
    """Embed pages of PDFs below `documents`, and queries for them, with the bundled model."""
    from pagevec.stores.condense import condense  # a former commit, which reads only, has none

    with pagevec.load("bundled") as model, tempfile.TemporaryDirectory(dir=scratch) as unpacked:
        real = read_real_pages(_MOST, Path(unpacked), documents)
        pages, rows = [], []
        images = [page.content for page in real.pages if isinstance(page.content, bytes)]
        texts = [page.text or "" for page in real.pages if isinstance(page.content, bytes)]
        for first in range(0, len(images), _BATCH):
            for vectors in model.embed_images(images[first : first + _BATCH]):
                kept, stands_for = condense(vectors, _THRESHOLD)
                pages.append(vectors[kept])
                rows.append(stands_for)
        queries = [model.embed_query(one) for one in real.queries]
        return RealMultiVectors(pages, rows, queries, texts, real.queries)


class Spread:
    """Yields pages, the same ones each time: their distinct vectors, and the row of each token.

    Args:
        real: the pages that they resemble.
    """

    def __init__(self, real: RealMultiVectors) -> None:
        self._real = real
        self._differences = _differences(real.pages)

    def __iter__(self) -> Iterator[tuple[MultiVector, NDArray[np.int32]]]:
        chance = np.random.default_rng(3)
        while True:
            place = int(chance.integers(len(self._real.pages)))
            yield self.move(self._real.pages[place], chance), self._real.rows[place]

    def move(self, vectors: MultiVector, chance: np.random.Generator) -> MultiVector:
        """Return the vectors of a page that resembles another one's, float32 (vectors, dim)."""
        chosen = chance.integers(len(self._differences), size=len(vectors))
        moved: MultiVector = vectors + _SHARE * self._differences[chosen]
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        return moved


def _differences(pages: list[MultiVector]) -> MultiVector:
    """Return differences between vectors of a page and the nearest ones of another page."""
    chance = np.random.default_rng(1)
    found = []
    for _ in range(_PAIRS):
        one, other = (pages[place] for place in chance.choice(len(pages), 2, replace=False))
        some = one[chance.choice(len(one), min(_ROWS, len(one)), replace=False)]
        found.append(some - other[(some @ other.T).argmax(axis=1)])
    return np.concatenate(found)

"""Real pages: the PDFs that Debian packages install in /usr/share/doc."""

import gzip
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import BenchmarkFailed
from benchmarks.retrieval.ranking import split_words
from pagevec.ingest.page import ReadOptions, SourcePage
from pagevec.ingest.pdf import open_pdf

PACKAGES = "bzip2-doc gnuplot-doc groff menhir-doc octave-doc"

DOCUMENTS = Path("/usr/share/doc")
_FEWEST_WORDS, _RARER, _ASKED = 40, 12, 3


class DocumentsMissing(BenchmarkFailed):
    """No PDFs are installed; the message names Debian packages that contain some."""


@dataclass(frozen=True, eq=False)
class RealPages:
    """Pages with a text layer, and queries for them.

    Attributes:
        pages: the pages.
        queries: three of a page's rarer words, which no other page has together.
        right: position in `pages` of the page that answers each query.
    """

    pages: list[SourcePage]
    queries: list[str]
    right: list[int]


def read_real_pages(limit: int, scratch: Path, directory: Path = DOCUMENTS) -> RealPages:
    """Return up to `limit` pages, spread evenly over all documents, the same ones each time.

    Raises:
        DocumentsMissing: fewer than two pages were found below `directory`.
    """
    files = _unpack_files(directory, scratch)
    pages = [page for file in files for page in _read_pages(file, -(-limit // max(1, len(files))))]
    pages = pages[:limit]
    if len(pages) < 2:
        raise DocumentsMissing(f"no PDFs with text in {directory}: apt-get install {PACKAGES}")
    queries = _make_queries([page.text or "" for page in pages])
    return RealPages(pages, list(queries.values()), list(queries))


def _unpack_files(directory: Path, scratch: Path) -> list[Path]:
    packed, files = sorted(directory.rglob("*.pdf.gz")), sorted(directory.rglob("*.pdf"))
    for number, file in enumerate(packed):
        plain = scratch / f"{number}-{file.stem}"
        with gzip.open(file) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        files.append(plain)
    return [file for file in files if file.stat().st_size]


def _read_pages(file: Path, limit: int) -> list[SourcePage]:
    with open_pdf(file, ReadOptions()) as document:
        step = max(1, document.count // (2 * limit))
        found: list[SourcePage] = []
        for number in range(1, document.count + 1, step):
            page = document.make(number)
            if len(set(split_words(page.text or ""))) >= _FEWEST_WORDS:
                found.append(page)
            if len(found) == limit:
                break
        return found


def _make_queries(texts: Sequence[str]) -> dict[int, str]:
    contents = [{word for word in split_words(text) if _can_be_asked(word)} for text in texts]
    pages_with = Counter(word for content in contents for word in content)
    queries = {}
    for number, content in enumerate(contents):
        rng = random.Random(number)  # noqa: S311 - nothing secret: the same queries each time
        rarer = sorted(sorted(content), key=lambda word: pages_with[word])[:_RARER]
        asked = rng.sample(rarer, min(_ASKED, len(rarer)))
        if asked and sum(content >= set(asked) for content in contents) == 1:
            queries[number] = " ".join(asked)
    return queries


def _can_be_asked(word: str) -> bool:
    return word.isalpha() and 4 <= len(word) <= 16

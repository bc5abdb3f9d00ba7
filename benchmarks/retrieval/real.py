"""Pages that nobody here made: the PDFs that Debian packages bring in /usr/share/doc."""

import gzip
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.retrieval.yardstick import words_of
from pagevec.ingest.page import SourcePage
from pagevec.ingest.pdf import pdf_pages

PACKAGES = "bzip2-doc gnuplot-doc groff menhir-doc octave-doc"

_DIRECTORY = Path("/usr/share/doc")
_FEWEST_WORDS, _RARER, _ASKED = 40, 12, 3


class DocumentsMissing(Exception):
    """There are no PDFs to measure with; the message names Debian packages that have some."""


@dataclass(frozen=True, eq=False)
class RealPages:
    """Pages with a text layer, and a query for each of them.

    Attributes:
        queries: three of a page's rarer words, which stand together on no other page here.
        right: for each query, the position of its page.
    """

    pages: list[SourcePage]
    queries: list[str]
    right: list[int]


def real_pages(limit: int, scratch: Path, directory: Path = _DIRECTORY) -> RealPages:
    """Return up to `limit` pages, evenly from all documents, the same ones each time.

    Raises:
        DocumentsMissing: fewer than two pages were found below `directory`.
    """
    files = _files(directory, scratch)
    pages = [page for file in files for page in _pages(file, -(-limit // max(1, len(files))))]
    pages = pages[:limit]
    if len(pages) < 2:
        raise DocumentsMissing(f"no PDFs with text in {directory}: apt-get install {PACKAGES}")
    queries = _queries([page.text or "" for page in pages])
    return RealPages(pages, list(queries.values()), list(queries))


def _files(directory: Path, scratch: Path) -> list[Path]:
    packed, files = sorted(directory.rglob("*.pdf.gz")), sorted(directory.rglob("*.pdf"))
    for number, file in enumerate(packed):
        plain = scratch / f"{number}-{file.stem}"
        with gzip.open(file) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        files.append(plain)
    return [file for file in files if file.stat().st_size]


def _pages(file: Path, limit: int) -> list[SourcePage]:
    with pdf_pages(file) as document:
        step = max(1, document.count // (2 * limit))
        found: list[SourcePage] = []
        for number in range(1, document.count + 1, step):
            page = document.make(number)
            if len(set(words_of(page.text or ""))) >= _FEWEST_WORDS:
                found.append(page)
            if len(found) == limit:
                break
        return found


def _queries(texts: Sequence[str]) -> dict[int, str]:
    contents = [{word for word in words_of(text) if _askable(word)} for text in texts]
    pages_with = Counter(word for content in contents for word in content)
    queries = {}
    for number, content in enumerate(contents):
        rng = random.Random(number)  # noqa: S311 - nothing secret: the same queries each time
        rarer = sorted(sorted(content), key=lambda word: pages_with[word])[:_RARER]
        asked = rng.sample(rarer, min(_ASKED, len(rarer)))
        if asked and sum(content >= set(asked) for content in contents) == 1:
            queries[number] = " ".join(asked)
    return queries


def _askable(word: str) -> bool:
    return word.isalpha() and 4 <= len(word) <= 16

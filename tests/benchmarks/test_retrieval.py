"""The benchmark of retrieval is sound; the model's own figures are not judged here.

Fonts come with reportlab and words are made here, so that no Debian packages are needed.
"""

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
import reportlab
from benchmarks.retrieval import fonts, words
from benchmarks.retrieval.__main__ import measure
from benchmarks.retrieval.pages import SIZES, HeldOutPage, make_queries, write_pages
from benchmarks.retrieval.ranking import Quality, rank_right_pages, score_bm25, score_maxsim
from benchmarks.retrieval.real import DocumentsMissing, read_real_pages

from benchmarks import condensing
from conftest import EXAMPLES
from pagevec.engine.models.registry import bundled_checkpoint
from pagevec.ingest.boundary import open_document
from pagevec.search.maxsim import maxsim

FONTS = [
    str(Path(reportlab.__file__).parent / "fonts" / name) for name in ("Vera.ttf", "VeraBd.ttf")
]
PAGES = 20


@pytest.fixture(autouse=True)
def some_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Word lists of 4,000 invented words for each language."""
    folder = tmp_path / "dict"
    folder.mkdir()
    for number, file in enumerate(words.LISTS.values()):
        rng = random.Random(number)  # noqa: S311 - nothing secret
        (folder / file).write_text("\n".join(words.draw_name(rng).lower() for _ in range(4000)))
    monkeypatch.setattr(words, "_DIRECTORY", folder)
    words.read_dictionary.cache_clear()
    monkeypatch.setattr("benchmarks.retrieval.pages.find_fonts", lambda held_out: FONTS)


@pytest.fixture
def pages(tmp_path: Path) -> list[HeldOutPage]:
    return write_pages(tmp_path / "pages.pdf", PAGES)


def test_pages_hold_what_they_say(pages: list[HeldOutPage], tmp_path: Path) -> None:
    """Each page's text layer has its words, in every size; the same call writes the same file."""
    with open_document(tmp_path / "pages.pdf") as document:
        for page in pages:
            text = (document.make(page.number).text or "").lower()
            assert all(word in text for kind in page.words.values() for word in kind)
    assert {page.size for page in pages} == set(SIZES)
    write_pages(tmp_path / "again.pdf", PAGES)
    assert (tmp_path / "pages.pdf").read_bytes() == (tmp_path / "again.pdf").read_bytes()


def test_a_query_has_one_answer(pages: list[HeldOutPage]) -> None:
    """The words of a query stand together on its own page and on no other."""
    for query in make_queries(pages):
        answers = [
            page.number
            for page in pages
            if set(query.text.split()) <= {w for kind in page.words.values() for w in kind}
        ]
        assert answers == [query.page.number]


def test_unseen_words_are_never_trained_on(pages: list[HeldOutPage]) -> None:
    """What counts as unseen is held out, and the lists that training draws from have none of it."""
    unseen = {words.fold(word) for page in pages for word in page.words["unseen"]}
    trained = {words.fold(w) for lang in words.LISTS for w in words.read_dictionary(lang, False)}
    assert unseen
    assert not unseen & trained


def test_quality() -> None:
    """Recall counts first places, nDCG@5 discounts the next four, the sixth is worth nothing."""
    quality = Quality.of(np.array([0, 1, 4, 5]))
    assert quality.recall == 0.25
    assert quality.ndcg == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(6)) / 4)


def test_a_tie_counts_as_a_miss() -> None:
    """Equal scores put the right page last among them."""
    table = np.array([[1, 1, 0], [0, 2, 1]], np.float32)
    assert rank_right_pages(table, [0, 1]).tolist() == [1, 0]


def test_scores_are_those_of_the_search() -> None:
    """All queries at once score as the retriever's MaxSim does, more rows than a block too."""
    rng = np.random.default_rng(0)
    queries = [rng.standard_normal((n, 128)).astype(np.float32) for n in (3, 4000, 1, 500, 20)]
    found = [rng.standard_normal((n, 128)).astype(np.float32) for n in (7, 30, 1)]
    expected = np.stack([maxsim(query, found) for query in queries])
    assert np.allclose(score_maxsim(queries, found), expected, rtol=1e-4)


def test_bm25() -> None:
    """BM25 compares without case and accents, keeps part numbers whole, and skips unknown words."""
    texts = ["Die Fähre ZX-12/3 legt ab", "the ferry ZX-12/4 leaves", "nothing of it"]
    table = score_bm25(["zx-12/4", "FAHRE", "unheard"], texts)
    assert table.argmax(axis=1)[:2].tolist() == [1, 0]
    assert not table[2].any()


def test_real_documents(tmp_path: Path) -> None:
    """Packed PDFs are found; their pages are asked for by words that only they have."""
    folder = tmp_path / "doc" / "package"
    folder.mkdir(parents=True)
    with gzip.open(folder / "report.pdf.gz", "wb") as packed:
        packed.write((EXAMPLES / "annual-report.pdf").read_bytes())
    found = read_real_pages(10, tmp_path, folder.parent)
    assert len(found.queries) == len(found.right) > 1
    for query, right in zip(found.queries, found.right, strict=True):
        having = [all(w in (p.text or "").lower() for w in query.split()) for p in found.pages]
        assert having[right]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fonts, word lists or documents, the error says which Debian packages have them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    fonts.find_fonts.cache_clear()
    with pytest.raises(fonts.FontsMissing, match=r"apt-get install .*fonts-lato"):
        fonts.find_fonts(held_out=True)
    monkeypatch.setattr(words, "_DIRECTORY", tmp_path / "nothing")
    words.read_dictionary.cache_clear()
    with pytest.raises(words.WordListMissing, match=r"apt-get install .*wngerman"):
        words.read_dictionary("german", held_out=False)
    with pytest.raises(DocumentsMissing, match=r"apt-get install .*octave-doc"):
        read_real_pages(10, tmp_path, tmp_path / "nothing")


@pytest.mark.long
def test_condensing(tmp_path: Path) -> None:
    """The benchmark of condensing stores less at each lower cosine, and says what it has lost."""
    measured = condensing.measure(bundled_checkpoint(), pages=10, real=0, documents=tmp_path)
    [first, *others] = measured.as_json()["held-out"]
    assert (first["name"], first["kept"], first["share"]) == ("all vectors", 1, 1)
    shares = [one["kept"] for one in others]
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.7
    assert all(one["change"] <= one["bound"] + 1e-5 for one in others)


@pytest.mark.long
def test_smallest_run() -> None:
    """A model is measured in every form; BM25 finds almost all pages, so the queries are fair."""
    report = measure(bundled_checkpoint(), pages=10, real=0)
    figures = report.as_json()
    forms = {row["name"]: row for row in figures["forms"]}
    kept = ("float32", "float16", "int8", "binary", "pooled 2x", "pooled 3x")
    each = [*kept, "service and store, float16"]
    both = [name for one in each for name in (one, f"{one}, condensed")]
    assert list(forms) == [*both, "BM25, text layer"]
    assert forms["BM25, text layer"]["all"].recall >= 0.9
    assert forms["float32"]["all"].queries == 10
    assert "| float32 |" in report.markdown()
    assert figures["setup"]["pages"] == 10

"""What is a word: in texts of many languages, and in those that nobody wrote to be read."""

import time

import pytest

from pagevec.stores.words import MOST_QUERY_TERMS, MOST_TERMS, QueryWords, page_terms

TERMS = [
    ("Müller GmbH & Co. KG", "muller gmbh co kg"),
    ("MU\u0308LLER Straße \uff26\uff35\uff2c\uff2c \ufb01ne", "muller strasse full fine"),
    ("don't l\u2019école", "dont don t lecole l ecole"),
    (
        "Inge-\nnieur Inge\u00adnieur In\ufffege\u200bnieur",
        "ingenieur inge nieur" + 2 * " ingenieur",
    ),
    ("RFC-2119 foo_bar", "rfc2119 rfc 2119 foobar foo bar"),
    ("1,234.5 = 1.234,5 = 1\u2019234.5", " ".join(["1234.5 1 234 5"] * 3)),
    ("3.14 0.125 1,2", "3.14 3 14 0.125 0 125 1.2 1 2"),
    ("2024-03-05", "20240305 2024 03 05"),
    ("x² ½", "x2 1 2"),
    ("محمّد أحمد ٢٠٢٤", "محمد احمد 2024"),
    ("שָׁלוֹם", "שלום"),
    ("हिन्दी भाषा", "हिन्दी भाषा"),
    ("ёлка", "елка"),
    ("東京タワー", "東京 京タ タワ ワー"),
    ("ｶﾞｲﾄﾞ が", "ガイ イド が"),
    ("水。", "水"),
    ("กลางคืน ปี๒๕๖๗", "กล ลา าง งค คื ืน ปี 2567"),
    ("ພາສາ ភាសា မြန်", "ພາ າສ ສາ ភា ាស សា မြ ြန န်"),
    ("서울이다", "서울 울이 이다"),
    ("iPhone手機15", "iphone 手機 15"),
    ("\ud800abc\0def\udfff", "abc def"),
    (" \n—…!", ""),
    (None, ""),
]


@pytest.mark.parametrize(("text", "expected"), TERMS)
def test_terms(text: str | None, expected: str) -> None:
    """Case, accents and ways of writing are folded; numbers and identifiers come in parts, too."""
    assert page_terms(text) == expected.split()


SPELLED = [
    ("Where is Müller's desk?", "muller desk", ("Müller", "desk")),
    ("RFC-2119", "rfc2119 2119", ("RFC-2119",)),
    ("RFC-2119", "rfc", ("RFC",)),
    ("Straße straße", "strasse", ("Straße", "straße")),
    ("東京タワーの高さ", "東京 タワ ワー 高さ", ("東京", "タワー", "高さ")),
    ("1,234.5 passengers", "1234.5 1 234 5", ("1,234.5",)),
    ("night night", "night nowhere", ("night",)),
    ("night", "", ()),
]


@pytest.mark.parametrize(("query", "found", "expected"), SPELLED)
def test_words_as_typed(query: str, found: str, expected: tuple[str, ...]) -> None:
    """Terms are shown as the words that they were in the query, one for those that overlap."""
    assert QueryWords(query).spell(found.split()) == expected


def test_a_query_has_the_terms_of_its_page() -> None:
    """Whatever the language: what is copied from a page into the query is found on it."""
    for text, expected in TERMS:
        assert set(QueryWords(text or "").terms) == set(expected.split()), text


HOSTILE = {
    "one word": "a" * 5_000_000,
    "marks": "a" + "\u0301\u0327" * 2_000_000,
    "marked letters": "a\u0301\u0327" * 1_000_000,
    "parts": "a-" * 2_000_000,
    "digits": "1," * 2_000_000,
    "line ends": "- \n" * 1_000_000,
    "surrogates": "\ud800" * 3_000_000,
    "NULs": "\0" * 3_000_000,
    "soft hyphens": "\u00ad" * 3_000_000,
    "one sentence": "漢" * 3_000_000,
    "ligatures": "\ufdfa" * 1_000_000,
    "every character": "".join(map(chr, range(0x110000))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_texts_are_cheap(kind: str) -> None:
    """Megabytes of anything cost less than seconds, and no more terms than a page may have."""
    start = time.process_time()
    terms, words = page_terms(HOSTILE[kind]), QueryWords(HOSTILE[kind])
    assert time.process_time() - start < 4
    assert len(terms) <= MOST_TERMS
    assert len(words.terms) <= MOST_QUERY_TERMS
    assert all(0 < len(term) <= 64 for term in terms)
    assert all(" " not in term and '"' not in term for term in terms)

"""Similarity maps: where on a page the words of a query find their answer."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import EXAMPLES, Service, pagevec, png
from pagevec.client import Client
from pagevec.commands.search import _remove_maps
from pagevec.errors import InvalidRequest
from pagevec.grid import PatchGrid
from pagevec.search.index import Index
from pagevec.search.similarity_maps import (
    SimilarityMap,
    combine_maps,
    find_words,
    map_similarities,
    token_maps,
)
from pagevec.types import Page, PageKey, Query, Token
from vectors import unit_vectors

QUERY = "how many passengers on the night route"


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "store"
    with Client(service.url, service.key) as client, Index(path, client) as index:
        assert not index.add(EXAMPLES).failed
    return path


@pytest.fixture
def index(service: Service, folder: Path) -> Iterator[Index]:
    with Client(service.url, service.key) as client, Index(folder, client) as opened:
        yield opened


def page_with_grid(rows: int, columns: int, seed: int = 0) -> Page:
    vectors = unit_vectors(4 + rows * columns, seed)
    return Page(PageKey("a", 1), vectors, grid=PatchGrid(rows, columns, 4))


def test_a_token_map_holds_cosines() -> None:
    """A map holds a query vector's similarity to each cell, row by row."""
    page, query = page_with_grid(6, 5), unit_vectors(3, seed=1)
    maps = token_maps(query, page)
    assert maps.shape == (3, 6, 5)
    np.testing.assert_allclose(maps[:, 2, 4], query @ page.vectors[4 + 2 * 5 + 4], atol=1e-6)


def test_only_the_querys_own_tokens_count() -> None:
    """Prompt and augmentation tokens change no map and have none."""
    page, vectors = page_with_grid(6, 5), unit_vectors(5, seed=2)
    tokens = [Token("Q:"), Token("night", 0, 5), Token(" route", 5, 11), Token("<pad>")]
    plain = map_similarities(Query("night route", vectors[1:3], tuple(tokens[1:3])), page)
    for more in (vectors[:4], vectors[[4, 1, 2, 0]]):
        maps = map_similarities(Query("night route", more, tuple(tokens)), page)
        assert [one.word for one in maps.words] == ["night", "route"]
        np.testing.assert_allclose(maps.overall.values, plain.overall.values, atol=1e-6)
        for one, other in zip(maps.words, plain.words, strict=True):
            np.testing.assert_allclose(one.values, other.values, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "pieces", "words"),
    [
        ("fares in 2024?", ["fa", "res", " in", " 20", "24", "?"], ["fares", "in", "2024"]),
        ("l'été, naïve", ["l", "'", "ét", "é", ",", " na", "ïve"], ["l'été", "naïve"]),
        ("  two   blanks ", ["  ", "two", "   ", "blanks", " "], ["two", "blanks"]),
        ("EUR 1,234.50", ["EUR", " ", "1", ",", "234", ".", "50"], ["EUR", "1,234.50"]),
        ("夜行バスの料金", ["夜行", "バス", "の", "料金"], ["夜行", "バス", "の", "料金"]),
        ("the the", ["the", " the"], ["the", "the"]),
        ("", [], []),
        ("?!", ["?", "!"], []),
    ],
)
def test_words(text: str, pieces: list[str], words: list[str]) -> None:
    """Tokens are put together into the words of the text; punctuation alone is no word."""
    tokens, start = [Token("<query>")], 0
    for piece in pieces:
        tokens.append(Token(piece, start, start + len(piece)))
        start += len(piece)
    assert start == len(text)
    found = find_words(text, [*tokens, Token("<pad>")])
    assert [word for word, _ in found] == words
    places = [place for _, some in found for place in some]
    assert len(places) == len(set(places)) and 0 not in places


def test_the_overall_map_is_where_tokens_are_particular() -> None:
    """A token that resembles every cell colours none; a token with an answer colours that."""
    everywhere = np.full((3, 10, 8), 0.9, np.float32)
    somewhere = np.full((1, 10, 8), 0.1, np.float32)
    somewhere[0, 7, 2] = 0.6
    together = combine_maps(np.concatenate([everywhere, somewhere]))
    assert together.sum() == pytest.approx(4)
    assert together[7, 2] > 10 * together[0, 0]
    assert np.unravel_index(together.argmax(), together.shape) == (7, 2)


def test_a_drawn_map_is_reddest_where_it_is_highest() -> None:
    """The picture keeps its size, is coloured at the highest cell and unchanged at the lowest."""
    values = np.zeros((10, 8), np.float32)
    values[2, 6] = 1.0
    drawn = SimilarityMap("word", values).draw(Image.new("RGB", (80, 100), "white"))
    assert drawn.size == (80, 100)
    red, green, _ = drawn.getpixel((65, 25))  # type: ignore[misc]
    assert red > 200 > green
    assert drawn.getpixel((5, 95)) == (255, 255, 255)


def test_the_map_of_a_word_is_highest_on_the_word(service: Service, tmp_path: Path) -> None:
    """On a page with six words, the map of each is highest where that word is printed."""
    words = ["harbour", "winter", "ticket", "bicycle", "garden", "museum"]
    image, font = Image.new("L", (1240, 1000), 255), ImageFont.load_default(48)
    places = {}
    for number, word in enumerate(words):
        place = (120 + 560 * (number % 2), 120 + 300 * (number // 2))
        ImageDraw.Draw(image).text(place, word, fill=0, font=font)
        places[word] = ImageDraw.Draw(image).textbbox(place, word, font=font)
    image.save(tmp_path / "page.png")
    with Client(service.url, service.key) as client, Index(tmp_path / "s", client) as index:
        index.add(tmp_path / "page.png")
        right = 0
        for word in words:
            [hit] = index.search(word)
            [one] = hit.maps().words
            rows, columns = one.values.shape
            row, column = divmod(int(one.values.argmax()), columns)
            x, y = (column + 0.5) * image.width / columns, (row + 0.5) * image.height / rows
            left, top, far, bottom = places[word]
            right += left - 40 <= x <= far + 40 and top - 40 <= y <= bottom + 40
    assert right >= 5


def test_a_text_has_no_map(index: Index) -> None:
    """A page without a patch grid is refused by name."""
    [hit] = index.search(QUERY, documents=["examples/notes.txt"])
    with pytest.raises(InvalidRequest, match=r"notes\.txt, page 1: it is a text"):
        hit.maps()


def test_the_picture_is_the_thumbnail_when_the_file_is_gone(
    service: Service, tmp_path: Path
) -> None:
    """A hit whose file is gone is drawn on the small picture in the store."""
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "page.png"
    Image.new("L", (1240, 1754), 200).save(file)
    with Client(service.url, service.key) as client, Index(tmp_path / "s", client) as index:
        index.add(file)
        file.unlink()
        [hit] = index.search("anything")
        assert max(hit.picture().size) == 320
        assert hit.maps().overall.draw(hit.picture()).size == hit.picture().size


def test_command(service: Service, folder: Path, tmp_path: Path) -> None:
    """`pagevec search` prints hits, as JSON on request, and draws a map for each word."""
    options = ["--store", folder, "--url", service.url, "--key", service.key]
    lines = pagevec("search", QUERY, *options, "-k", "3")
    assert lines.returncode == 0, lines.stderr
    assert len(lines.stdout.strip().splitlines()) == 3
    hits = json.loads(pagevec("search", QUERY, *options, "--json").stdout)
    assert len(hits) == 8
    reasons = {"relevance", "found_by", "found_words"}
    assert hits[0].keys() == {"document", "page", "score", "metadata"} | reasons
    report, maps = EXAMPLES / "annual-report.pdf", tmp_path / "maps"
    drawn = pagevec("search", "fares 2024", *options, "-k", 1, "--document", report, "--maps", maps)
    assert drawn.returncode == 0, drawn.stderr
    [overall] = maps.glob("*.jpg")
    names = sorted(path.name for path in overall.with_suffix("").iterdir())
    assert names == ["2024.jpg", "fares.jpg"]
    with Image.open(overall) as picture:
        assert picture.size[0] in (1240, 1241)


def test_a_damaged_thumbnail_costs_its_own_map(service: Service, tmp_path: Path) -> None:
    """A page whose small picture in the store is damaged is named; the others have their maps."""
    (tmp_path / "in").mkdir()
    files = [tmp_path / "in" / f"{name}.png" for name in ("one", "two", "three")]
    for seed, file in enumerate(files):
        file.write_bytes(png(310, 438, seed))
    with Client(service.url, service.key) as client, Index(tmp_path / "s", client) as index:
        index.add(tmp_path / "in")
    for file in files:
        file.unlink()
    [database] = (tmp_path / "s").glob("*.sqlite3")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE contents SET thumbnail = x'ffd8ff00' WHERE page = 2")
    options = ["--store", tmp_path / "s", "--url", service.url, "--key", service.key]
    done = pagevec("search", "anything", *options, "--maps", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no map of") == 1
    assert len(list((tmp_path / "maps").glob("*.jpg"))) == 2


def test_a_document_that_is_not_there(service: Service, folder: Path) -> None:
    """`--document` with a name that the store does not have is an error that repeats it."""
    options = ["--store", folder, "--url", service.url, "--key", service.key]
    done = pagevec("search", QUERY, *options, "--document", "nowhere.pdf")
    assert done.returncode == 2
    assert "no document 'nowhere.pdf'" in done.stderr


def test_maps_of_an_earlier_search(tmp_path: Path) -> None:
    """They go, and nothing else, whatever others name and link in the folder."""
    maps, elsewhere = tmp_path / "maps", tmp_path / "elsewhere"
    for folder in (maps / "01-a-1", elsewhere):
        folder.mkdir(parents=True)
        (folder / "fares.jpg").touch()
    for name in ("01-a-1.jpg", "mine.jpg", "02-b-2.jpg"):
        (maps / name).touch()
    (maps / "02-b-2").symlink_to(elsewhere)
    (tmp_path / "outside.jpg").touch()
    listed = ["01-a-1.jpg", "02-b-2.jpg", "..", "../outside.jpg", "", "mine.jpg"]
    (maps / ".pagevec-maps").write_text("".join(f"{json.dumps(one)}\n" for one in listed))
    _remove_maps(maps)
    assert sorted(one.name for one in maps.iterdir()) == [".pagevec-maps", "02-b-2", "mine.jpg"]
    assert (elsewhere / "fares.jpg").exists() and (tmp_path / "outside.jpg").exists()

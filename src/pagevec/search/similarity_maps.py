"""Where on a page a query finds its answer: the similarity maps of the ColPali paper (section 5.3).

A map has one value for each cell of the page's patch grid. There is one map for each word of the
query, and one of all its tokens. Tokens that are not part of the query, such as the augmentation
tokens of colpali-engine, have none (Faysse et al. 2024, "ColPali").
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pagevec.errors import InvalidRequest
from pagevec.grid import PatchGrid, join_length, place_tiles
from pagevec.types import MultiVector, Page, Query, Token

if TYPE_CHECKING:
    from PIL import Image

_SHARPNESS = 20.0  # of a softmax over cosines
_STRENGTH = 0.6  # of the colour where the map is highest; the page stays readable below it
_WORD = re.compile(r"[^\W_]+(?:['\u2019.,-][^\W_]+)*")
# Scripts without spaces between words: each token there is a word of its own.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_NAME_BYTES = 100  # of a file name; file systems take 255 for all of it


@dataclass(frozen=True, eq=False)
class SimilarityMap:
    """Similarities of a part of a query to the cells of a page.

    Attributes:
        word: the word of the query; None for the map of all its tokens.
        values: float32 (rows, columns), the higher, the more similar.
    """

    word: str | None
    values: NDArray[np.float32]

    def draw(self, image: "Image.Image") -> "Image.Image":
        """Return the picture of the page with this map over it: the redder, the more similar."""
        from PIL import Image

        mask = Image.fromarray(np.uint8(self._shares() ** 2 * _STRENGTH * 255))
        page = image.convert("RGB")
        colour = Image.new("RGB", page.size, (230, 30, 30))
        return Image.composite(colour, page, mask.resize(page.size, Image.Resampling.BICUBIC))

    def levels(self) -> NDArray[np.uint8]:
        """Return uint8 (rows, columns): 0 up to the median cell, 255 for the highest."""
        return np.rint(self._shares() * 255).astype(np.uint8)

    def _shares(self) -> NDArray[np.float32]:
        # Half of the page stays as it is: a word that is nowhere would colour all of it.
        low, high = float(np.median(self.values)), float(self.values.max())
        spread = high - low
        return np.clip((self.values - low) / spread, 0, 1) if spread else 0 * self.values


@dataclass(frozen=True, eq=False)
class PageMaps:
    """The maps of one page.

    Attributes:
        overall: the map of all tokens of the query.
        words: one map for each word, in the query's order; empty where the model does not tell
            which token is which word.
    """

    overall: SimilarityMap
    words: tuple[SimilarityMap, ...]

    def save(self, image: "Image.Image", file: str | os.PathLike[str]) -> None:
        """Draw all maps over the picture of the page, as JPEG.

        Args:
            image: the page's picture.
            file: the map of all tokens, such as `maps/report-3.jpg`; those of the words go into
                the folder of the same name, such as `maps/report-3/revenue.jpg`.
        """
        # PNG takes half a second and a megabyte for each map.
        whole = Path(file)
        whole.parent.mkdir(parents=True, exist_ok=True)
        self.overall.draw(image).save(whole, quality=90)
        folder = whole.with_suffix("")
        if self.words:
            folder.mkdir(exist_ok=True)
        for name, one in zip(_file_names(self.words), self.words, strict=True):
            one.draw(image).save(folder / f"{name}.jpg", quality=90)


def map_similarities(query: Query, page: Page) -> PageMaps:
    """Map where on `page` the words of `query` find their answer.

    Raises:
        InvalidRequest: the page's patch grid is not known, or its vectors were pooled.
    """
    maps = token_maps(query.vectors, page)
    real = [place for place, token in enumerate(query.tokens) if token.start is not None]
    overall = combine_maps(maps[real] if real else maps)
    words = tuple(
        SimilarityMap(word, maps[places].mean(axis=0))
        for word, places in find_words(query.text, query.tokens)
    )
    return PageMaps(SimilarityMap(None, overall), words)


def token_maps(vectors: MultiVector, page: Page) -> NDArray[np.float32]:
    """Return one map for each vector of a query.

    Args:
        vectors: of the query, float32 (query vectors, dim).
        page: with its patch grid.

    Returns:
        float32 (query vectors, rows, columns): cosines. The tiles of a long page make one map,
        the higher cosine where they overlap.

    Raises:
        InvalidRequest: the page's patch grid is not known, or its vectors were pooled.
    """
    grid = page.grid
    tiles = page.token_tiles
    if grid is None:
        raise InvalidRequest(f"{_name(page)}: {_explain_no_grid(page)}")
    if len(tiles[0]) < grid.first + grid.cells:
        raise InvalidRequest(f"{_name(page)}: its vectors are pooled, each stands for many patches")
    maps = [_tile_maps(vectors, tile, grid) for tile in tiles]
    return maps[0] if len(maps) == 1 else _join_tiles(maps)


def _name(page: Page) -> str:
    return f"{page.key.document}, page {page.key.number}"


def _explain_no_grid(page: Page) -> str:
    if page.thumbnail is None and page.text is not None:
        return "it is a text, which has no patches"
    return (
        "no patch grid is stored with it: its model cuts pages into tiles, or another program "
        "stored it"
    )


def _tile_maps(vectors: MultiVector, tile: MultiVector, grid: PatchGrid) -> NDArray[np.float32]:
    visual = tile[grid.first : grid.first + grid.cells]
    maps: NDArray[np.float32] = (vectors @ visual.T).astype(np.float32)
    return maps.reshape(len(vectors), grid.rows, grid.columns)


def _join_tiles(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the maps of a page from those of its tiles, which follow each other lengthwise."""
    tokens, *shape = maps[0].shape
    axis = int(shape[1] > shape[0])  # tiles are longer in the direction of their page
    side = shape[axis]
    shape[axis] = join_length(side, len(maps))
    joined = np.full((tokens, *shape), -1, np.float32)
    for start, tile in zip(place_tiles(shape[axis], side, len(maps)), maps, strict=True):
        place = np.s_[:, start : start + side] if axis == 0 else np.s_[:, :, start : start + side]
        joined[place] = np.maximum(joined[place], tile)
    return joined


def combine_maps(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one map (rows, columns) of several (tokens, rows, columns): where the score is won.

    MaxSim takes each token's best cell. Here each token has one share to give, and gives it to the
    cells by a softmax of its similarities: a token that resembles the whole page (the empty margin,
    say) colours nothing, a token with an answer colours that.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    weights = np.exp(_SHARPNESS * (flat - flat.max(axis=1, keepdims=True)))
    shares: NDArray[np.float64] = (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0)
    return shares.reshape(maps.shape[1:]).astype(np.float32)


def find_words(text: str, tokens: Sequence[Token]) -> list[tuple[str, list[int]]]:
    """Return the words of `text`, each with the positions of its tokens.

    A word is a run of letters and digits; in scripts without spaces each token is one. Words
    without a token of their own are left out.
    """
    words: list[tuple[str, list[int]]] = []
    for found in _WORD.finditer(text):
        places = [i for i, token in enumerate(tokens) if _lies_in(token, text, found)]
        if _UNSPACED.search(found.group()):
            words += [(_spelling(tokens[i], text), [i]) for i in places]
        elif places:
            words.append((found.group(), places))
    return words


def _lies_in(token: Token, text: str, word: re.Match[str]) -> bool:
    if token.start is None or token.end is None:
        return False
    # Tokens of many vocabularies begin with the space before their word.
    spelling = text[token.start : token.end]
    first = token.start + len(spelling) - len(spelling.lstrip())
    return first < token.end and word.start() <= first < word.end()


def _spelling(token: Token, text: str) -> str:
    return text[token.start : token.end].strip()


def _file_names(maps: Sequence[SimilarityMap]) -> Iterator[str]:
    """Yield a file name for each word; a repeated word gets a number."""
    used: set[str] = set()
    for one in maps:
        word = (one.word or "").encode()[:_NAME_BYTES].decode(errors="ignore")
        names = (word if number == 1 else f"{word}-{number}" for number in count(1))
        name = next(name for name in names if name.casefold() not in used)
        used.add(name.casefold())
        yield name

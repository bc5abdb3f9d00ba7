"""Targets of the losses: which word covers which cell, how words are spelled, the queries."""

import random
from dataclasses import dataclass

import numpy as np
import torch

from training.crops import CELL, LETTERS, Crop, Word
from training.model import SPELLED_FIRST, SPELLED_LAST

_CLASS = {letter: number for number, letter in enumerate(LETTERS)}
_MOST_CELLS = 24


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of one size, and their targets.

    Attributes:
        pixels: uint8 (crops, height, width).
        points: int64 (crops, rows, columns, POINTS), the letter at each point.
        words: every word that is completely inside a crop.
        cells: int64 (words, most), the cells of each word, numbered through the batch and padded
            with -1.
        main: int64 (crops * cells), the word that covers most of a cell, or -1.
        queries: one to four words of a crop each.
        query_crop: int64 (queries), the crop of each query.
    """

    pixels: torch.Tensor
    points: torch.Tensor
    words: list[str]
    cells: torch.Tensor
    main: torch.Tensor
    queries: list[str]
    query_crop: torch.Tensor


def make_batch(rng: random.Random, crops: list[Crop], queries_each: int) -> Batch:
    """Batch crops; those without a whole word get no query."""
    height, width = crops[0].pixels.shape
    rows, columns = height // CELL, width // CELL
    words, cells, queries, query_crop = [], [], [], []
    cover = np.zeros(len(crops) * rows * columns)
    main = np.full(len(crops) * rows * columns, -1)
    for number, crop in enumerate(crops):
        for word in crop.words:
            index, area = _covered(word, rows, columns)
            index = index + number * rows * columns
            better = area > np.maximum(cover[index], 0.15)
            cover[index[better]], main[index[better]] = area[better], len(words)
            words.append(word.text)
            cells.append(index[np.argsort(-area)][:_MOST_CELLS])
        if crop.words:
            queries += [_query(rng, crop.words) for _ in range(queries_each)]
            query_crop += [number] * queries_each
    padded = np.full((len(cells), _MOST_CELLS), -1)
    for row, index in enumerate(cells):
        padded[row, : len(index)] = index
    return Batch(
        pixels=torch.from_numpy(np.stack([crop.pixels for crop in crops])),
        points=torch.from_numpy(np.stack([crop.points for crop in crops])).long(),
        words=words,
        cells=torch.from_numpy(padded),
        main=torch.from_numpy(main),
        queries=queries,
        query_crop=torch.tensor(query_crop),
    )


def spelled(words: list[str]) -> torch.Tensor:
    """Return the classes of the words' first and last letters, int64 (words, SPELLED_...)."""
    rows = []
    for word in words:
        classes = [_CLASS.get(letter, 0) for letter in word]
        first = (classes + [0] * SPELLED_FIRST)[:SPELLED_FIRST]
        rows.append(first + ([0] * SPELLED_LAST + classes)[-SPELLED_LAST:])
    return torch.tensor(rows)


def _query(rng: random.Random, words: list[Word]) -> str:
    count = min(len(words), rng.choice((1, 1, 1, 1, 2, 3)))
    if rng.random() < 0.5:
        start = rng.randint(0, len(words) - count)
        return " ".join(word.text for word in words[start : start + count])
    return " ".join(word.text for word in rng.sample(words, count))


def _covered(word: Word, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells that a word lies on, and the share of each that it covers."""
    left, top, right, bottom = word.box
    wide = _overlap(left, right, columns)
    high = _overlap(top, bottom, rows)
    area = np.outer(high, wide).ravel() / CELL**2
    index = np.flatnonzero(area > min(0.12, 0.5 * area.max()))
    return index, area[index]


def _overlap(start: float, end: float, count: int) -> np.ndarray:
    edges = np.arange(count) * CELL
    return (np.minimum(end, edges + CELL) - np.maximum(start, edges)).clip(0)

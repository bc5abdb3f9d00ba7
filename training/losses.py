"""The four losses: letters, spelling, a word and its cells, a query and its crop."""

import math
from collections import deque
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional

from training.model import SPELLED_FIRST, SPELLED_LAST, Reader
from training.targets import Batch, spelled

_PRINTED, _ASKED, _CROPS = 48, 24, 24  # steps for which each is remembered
_SHARPNESS = 20.0  # of the softmax over cosines


@dataclass(frozen=True)
class Weights:
    """Weight of each loss."""

    letters: float = 1.0
    spelling: float = 0.5
    words: float = 0.3
    crops: float = 0.3


class Memory:
    """Words and crops of the last steps, as further negatives that cost one matrix product each.

    No gradient flows into them.
    """

    def __init__(self) -> None:
        self._printed: deque[tuple[list[str], torch.Tensor, torch.Tensor]] = deque(maxlen=_PRINTED)
        self._asked: deque[tuple[list[str], torch.Tensor]] = deque(maxlen=_ASKED)
        self._crops: deque[torch.Tensor] = deque(maxlen=_CROPS)

    def keep(
        self, batch: Batch, cells: torch.Tensor, asked: list[str], at_end: torch.Tensor
    ) -> None:
        """Add the words of a step and forget the oldest ones."""
        near = cells.detach()[batch.cells.clamp(min=0)]
        self._printed.append((batch.words, near, batch.cells >= 0))
        self._asked.append((asked, at_end.detach()))

    def with_crops(self, vectors: torch.Tensor) -> list[torch.Tensor]:
        """Return the vectors of these crops and of those of the last steps, and remember these."""
        everything = [vectors, *self._crops]
        self._crops.append(vectors.detach())
        return everything

    def printed(self, at_end: torch.Tensor) -> tuple[list[str], torch.Tensor]:
        """Return the remembered printed words, and scores of the asked words (asked, words)."""
        words = [word for known, _, _ in self._printed for word in known]
        fits = [_best(at_end @ near.flatten(0, 1).T, mask) for _, near, mask in self._printed]
        return words, torch.cat([at_end.new_empty(len(at_end), 0), *fits], 1)

    def asked(self, near: torch.Tensor, inside: torch.Tensor) -> tuple[list[str], torch.Tensor]:
        """Return the remembered asked words, and scores of the printed words (words, asked)."""
        words = [word for known, _ in self._asked for word in known]
        fits = [_best(vectors @ near.flatten(0, 1).T, inside).T for _, vectors in self._asked]
        return words, torch.cat([near.new_empty(len(near), 0), *fits], 1)


def losses(
    reader: Reader, batch: Batch, weights: Weights, memory: Memory, *, as_signs: bool = False
) -> dict[str, torch.Tensor]:
    """Return the losses, and the accuracy of letters, words and crops.

    With `as_signs` the vectors of crops are rounded to their signs, as a store keeps them, and the
    gradient passes straight through (Bengio and others, 2013).
    """
    if not weights.words:
        return _letters(reader.letter_logits(batch.pixels), batch)
    vectors, logits = reader.pages(batch.pixels)
    if as_signs:
        vectors = vectors + (vectors.sign() / math.sqrt(vectors.shape[-1]) - vectors).detach()
    tokens, mask, ends = reader.texts(batch.queries)
    cells = vectors[:, : batch.main.numel() // len(vectors)].reshape(-1, vectors.shape[-1])
    row = torch.tensor([r for r, places in enumerate(ends) for _ in places])
    at_end = tokens[row, torch.tensor([place for places in ends for place in places])]
    asked = [word for query in batch.queries for word in query.split(" ")]
    words, word_hit = _words(at_end, asked, cells, batch, memory)
    crops, crop_hit = _crops(tokens, mask, vectors, batch.query_crop, memory)
    return {
        **_letters(logits, batch),
        "spelling": _spelling(reader, cells, at_end, asked, batch),
        "words": words,
        "crops": crops,
        "word_hit": word_hit,
        "crop_hit": crop_hit,
    }


def _letters(logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    loss = functional.cross_entropy(logits.flatten(0, -2), batch.points.flatten())
    right = (logits.argmax(-1) == batch.points)[batch.points > 0].float().mean()
    return {"letters": loss, "letter_hit": right}


def total(parts: dict[str, torch.Tensor], weights: Weights) -> torch.Tensor:
    """Return the weighted sum of the losses."""
    return sum(weight * parts[name] for name, weight in asdict(weights).items() if name in parts)


def _spelling(reader, cells, at_end, asked, batch) -> torch.Tensor:
    """Let a cell's vector and its word's vector spell the same letters through one shared head."""
    covered = (batch.main >= 0).nonzero()[:, 0]
    seen = spelled(batch.words)[batch.main[covered]]
    return _spells(reader, cells[covered], seen) + _spells(reader, at_end, spelled(asked))


def _spells(reader: Reader, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    scaled = vectors * math.sqrt(vectors.shape[-1])
    logits = reader.spelling(scaled).view(len(vectors), SPELLED_FIRST + SPELLED_LAST, -1)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _words(at_end, asked, cells, batch, memory) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast each asked word with every printed word, by its best cell, in both directions."""
    near, inside = cells[batch.cells.clamp(min=0)], batch.cells >= 0
    here = _best(at_end @ near.flatten(0, 1).T, inside)  # (asked, words)
    old_printed, to_old_printed = memory.printed(at_end)
    old_asked, to_old_asked = memory.asked(near, inside)
    forth = _same(asked, batch.words + old_printed)
    back = _same(batch.words, asked + old_asked)
    loss = _softmax_loss(torch.cat([here, to_old_printed], 1) * _SHARPNESS, forth)
    known = back.any(1)
    loss = loss + _softmax_loss(
        torch.cat([here.T, to_old_asked], 1)[known] * _SHARPNESS, back[known]
    )
    memory.keep(batch, cells, asked, at_end)
    right = _same(asked, batch.words).gather(1, here.argmax(1, keepdim=True))
    return loss / 2, right.float().mean()


def _best(products: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Reduce (asked, words * cells) to (asked, words): the best of each word's cells."""
    return products.view(len(products), *inside.shape).masked_fill(~inside, -2).amax(-1)


def _same(rows: list[str], columns: list[str]) -> torch.Tensor:
    number = {word: n for n, word in enumerate(dict.fromkeys(rows + columns))}
    left, right = (torch.tensor([number[word] for word in words]) for words in (rows, columns))
    return left[:, None] == right


def _crops(tokens, mask, vectors, own, memory) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast each query's own crop with all others, by MaxSim."""
    score = torch.cat([_maxsim(tokens, mask, crops) for crops in memory.with_crops(vectors)], 1)
    loss = functional.cross_entropy(score * _SHARPNESS / 10, own)
    return loss, (score.argmax(1) == own).float().mean()


def _maxsim(tokens: torch.Tensor, mask: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """Return the MaxSim (n, m) of queries (n, tokens, dim) and crops (m, cells, dim)."""
    near = tokens.flatten(0, 1) @ crops.flatten(0, 1).T
    best = near.view(*tokens.shape[:2], *crops.shape[:2]).amax(-1)
    return (best * mask[..., None]).sum(1)


def _softmax_loss(score: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    log = functional.log_softmax(score, 1)
    share = right.float() / right.sum(1, keepdim=True).clamp(min=1)
    return -(log * share).sum(1).mean()

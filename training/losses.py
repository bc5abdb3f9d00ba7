"""What the model is trained for: letters, spelling, a word's own cells, a query's own crop."""

import math
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional

from training.model import SPELLED_FIRST, SPELLED_LAST, Reader
from training.targets import Batch, spelled

_SHARPNESS = 20.0  # of the softmax over cosines


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    letters: float = 1.0
    spelling: float = 0.5
    words: float = 0.3
    crops: float = 0.3


def losses(reader: Reader, batch: Batch, weights: Weights) -> dict[str, torch.Tensor]:
    """Return the losses, and accuracies: letters read, words and crops found."""
    if not weights.words:
        return _letters(reader.letter_logits(batch.pixels), batch)
    vectors, logits = reader.pages(batch.pixels)
    tokens, mask, ends = reader.texts(batch.queries)
    cells = vectors[:, : batch.main.numel() // len(vectors)].reshape(-1, vectors.shape[-1])
    row = torch.tensor([r for r, places in enumerate(ends) for _ in places])
    at_end = tokens[row, torch.tensor([place for places in ends for place in places])]
    asked = [word for query in batch.queries for word in query.split(" ")]
    words, word_hit = _words(at_end, asked, cells, batch)
    crops, crop_hit = _crops(tokens, mask, vectors, batch.query_crop)
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
    """Return the weighted sum."""
    return sum(weight * parts[name] for name, weight in asdict(weights).items() if name in parts)


def _spelling(reader, cells, at_end, asked, batch) -> torch.Tensor:
    """One readout for both sides: a cell's vector and its word's vector have to spell the same."""
    covered = (batch.main >= 0).nonzero()[:, 0]
    seen = spelled(batch.words)[batch.main[covered]]
    return _spells(reader, cells[covered], seen) + _spells(reader, at_end, spelled(asked))


def _spells(reader: Reader, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    scaled = vectors * math.sqrt(vectors.shape[-1])
    logits = reader.spelling(scaled).view(len(vectors), SPELLED_FIRST + SPELLED_LAST, -1)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _words(at_end, asked, cells, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A word's vector against every word on the crops, by its best cell; both directions."""
    inside = batch.cells >= 0
    near = (at_end @ cells.T)[:, batch.cells.clamp(min=0)]
    score = near.masked_fill(~inside, -2).amax(-1) * _SHARPNESS  # (asked, words)
    number = {word: n for n, word in enumerate(dict.fromkeys(asked + batch.words))}
    same = torch.tensor([number[w] for w in asked])[:, None] == torch.tensor(
        [number[w] for w in batch.words]
    )
    asked_for = same.any(0)
    loss = _softmax_loss(score, same) + _softmax_loss(score.T[asked_for], same.T[asked_for])
    hit = same.gather(1, score.argmax(1, keepdim=True)).float().mean()
    return loss / 2, hit


def _crops(tokens, mask, vectors, own) -> tuple[torch.Tensor, torch.Tensor]:
    """Late interaction: a query against every crop, its own against the others."""
    count, longest, size = tokens.shape
    near = tokens.reshape(-1, size) @ vectors.reshape(-1, size).T
    best = near.view(count, longest, len(vectors), -1).amax(-1)
    score = (best * mask[..., None]).sum(1) * _SHARPNESS / 10
    return functional.cross_entropy(score, own), (score.argmax(1) == own).float().mean()


def _softmax_loss(score: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    log = functional.log_softmax(score, 1)
    share = right.float() / right.sum(1, keepdim=True).clamp(min=1)
    return -(log * share).sum(1).mean()

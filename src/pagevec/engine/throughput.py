"""How long work takes, estimated from the work so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pagevec.engine.scheduler import batch_tokens, cut

_OLD_WEIGHT = 0.8  # of the old estimate at each measurement, so that a few batches decide
_FULL = 0.25  # of the budget: smaller batches do not fill the device, and do not count
# Smaller inputs do not count either: preparing them takes the time of the calls, not of the work.
_MIN_PIXELS = 500_000
_MIN_CHARACTERS = 2_000
_MIN_VECTORS = 500
# Vectors at which pooling costs twice as much for each pair: the distances leave the caches.
_POOLING_CROSSOVER = 8_192
# Numbers that two vectors are compared by, and up to which merging costs more than comparing.
_POOLING_NUMBERS = 128
# What a slow core takes, until it is measured: rather too much than nothing.
_SECONDS_PER_PIXEL = 1e-7
_SECONDS_PER_CHARACTER = 2e-6
_SECONDS_PER_PAIR = 5e-8


@dataclass
class Throughput:
    """Estimates how long work will take, from batches that filled the device.

    Attributes:
        quadratic_crossover: see `BatchHints`.
        padded: see `BatchHints`.
        dim: components of a vector.
    """

    quadratic_crossover: float = 32_768.0
    padded: bool = True
    dim: int = _POOLING_NUMBERS
    _seconds_per_work: dict[bool, float] = field(default_factory=dict)
    _page_batch_work: float = 0.0
    _seconds_per_pixel: float | None = None
    _seconds_per_character: float | None = None
    _seconds_per_pair: float | None = None

    def work(self, tokens: int) -> float:
        """Return the work of one input, in tokens of a short sequence."""
        return tokens * (1 + tokens / self.quadratic_crossover)

    def request_work(self, lengths: Sequence[int], budget: int) -> float:
        """Return the work of a request, with the padding of the batches that it will be cut into.

        Args:
            lengths: tokens of each input.
            budget: tokens of a full batch.
        """
        batches = cut(lengths, budget, self.padded) if self.padded else [lengths]
        return sum(map(self._batch_work, batches))

    def learn_forward(
        self, is_query: bool, lengths: Sequence[int], budget: int, seconds: float
    ) -> None:
        """Learn from a forward pass, if its batch was large enough.

        Args:
            is_query: whether the inputs were texts.
            lengths: tokens of each input.
            budget: tokens of a full batch.
            seconds: what the pass took.
        """
        if batch_tokens(lengths, self.padded) < _FULL * budget:
            return
        work = self._batch_work(lengths)
        old = self._seconds_per_work.get(is_query)
        self._seconds_per_work[is_query] = _average(old, seconds / work)
        if not is_query:
            self._page_batch_work = max(self._page_batch_work, work)

    def learn_prepare(self, pixels: int, seconds: float) -> None:
        """Learn from the preparation of one page in one thread, if the page was large enough."""
        if pixels >= _MIN_PIXELS:
            self._seconds_per_pixel = _average(self._seconds_per_pixel, seconds / pixels)

    def learn_text(self, characters: int, seconds: float) -> None:
        """Learn from the preparation of texts, if they were long enough."""
        if characters >= _MIN_CHARACTERS:
            new = seconds / characters
            self._seconds_per_character = _average(self._seconds_per_character, new)

    def learn_pooling(self, vectors: int, seconds: float) -> None:
        """Learn from the pooling of one input in one thread, if it was large enough."""
        if vectors >= _MIN_VECTORS:
            new = seconds / self._pairs(vectors)
            self._seconds_per_pair = _average(self._seconds_per_pair, new)

    def forward_seconds(self, is_query: bool, work: float) -> float:
        """Return the seconds that `work` takes on the device; 0 before the first measurement."""
        return work * self._seconds_per_work.get(is_query, 0.0)

    def prepare_seconds(self, pixels: int, threads: int = 1) -> float:
        """Return the seconds that it takes `threads` to decode and resize `pixels` of pages."""
        return pixels * (self._seconds_per_pixel or _SECONDS_PER_PIXEL) / threads

    def text_seconds(self, characters: int) -> float:
        """Return the seconds that it takes to tokenize texts of so many characters in all."""
        return characters * (self._seconds_per_character or _SECONDS_PER_CHARACTER)

    def pooling_seconds(self, vectors: int) -> float:
        """Return the seconds that it takes one thread to pool this many vectors of one input."""
        return self._pairs(vectors) * (self._seconds_per_pair or _SECONDS_PER_PAIR)

    @property
    def pass_work(self) -> float:
        """Work of queries that takes as long as a full batch of pages; no limit before both ran."""
        of_query = self._seconds_per_work.get(True)
        if not of_query or not self._page_batch_work:
            return float("inf")
        return self.forward_seconds(False, self._page_batch_work) / of_query

    def _batch_work(self, lengths: Sequence[int]) -> float:
        computed = [max(lengths)] * len(lengths) if self.padded else lengths
        return sum(map(self.work, computed))

    def _pairs(self, vectors: int) -> float:
        """Return the pairs that pooling compares, weighted by what one of them costs."""
        numbers = min(vectors, self.dim)
        weight = max(1.0, numbers / _POOLING_NUMBERS)
        return vectors**2 * weight * (1 + vectors / _POOLING_CROSSOVER)


def _average(old: float | None, new: float) -> float:
    return new if old is None else _OLD_WEIGHT * old + (1 - _OLD_WEIGHT) * new

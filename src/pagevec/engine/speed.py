"""How long a request will take, from the speed measured so far. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pagevec.engine.scheduler import batch_tokens

_KEPT = 0.8  # of the old measure, at each new one: a few batches decide
_FULL = 0.25  # of the budget: a smaller batch does not fill the device and says little of its speed
# Below this a page's preparation costs calls, not pixels.
_PAGE_PIXELS = 500_000


@dataclass
class Speed:
    """Seconds for each unit of work, learned from batches that filled the device.

    Attributes:
        attention_knee: sequence length at which attention, quadratic, costs as much as all that is
            linear in the tokens: 4 x hidden + 3 x intermediate size for a gated transformer layer.
        padded: whether batches are, so that each input costs as much as the longest.
    """

    attention_knee: float = 32_768.0
    padded: bool = True
    _seconds_per_work: dict[bool, float] = field(default_factory=dict)
    _seconds_per_pixel: float = 0.0

    def work(self, tokens: int) -> float:
        """Return the work of one input, in tokens of a short sequence."""
        return tokens * (1 + tokens / self.attention_knee)

    def learn_forward(
        self, is_query: bool, lengths: Sequence[int], budget: int, seconds: float
    ) -> None:
        """Take in a forward pass over sequences of `lengths`, if it was large enough to tell."""
        if batch_tokens(lengths, self.padded) < _FULL * budget:
            return
        computed = [max(lengths)] * len(lengths) if self.padded else lengths
        each = seconds / sum(map(self.work, computed))
        old = self._seconds_per_work.get(is_query, each)
        self._seconds_per_work[is_query] = _mean(old, each)

    def learn_prepare(self, pixels: int, seconds: float) -> None:
        """Take in the decoding and resizing of one page, on one thread, if it was large enough."""
        if pixels < _PAGE_PIXELS:
            return
        each = seconds / pixels
        self._seconds_per_pixel = _mean(self._seconds_per_pixel or each, each)

    def forward_seconds(self, is_query: bool, work: float) -> float:
        """Return the seconds that `work` takes on the device; 0 before the first measure."""
        return work * self._seconds_per_work.get(is_query, 0.0)

    def prepare_seconds(self, pixels: int, threads: int) -> float:
        """Return the seconds that `pixels` of pages take to decode and resize."""
        return pixels * self._seconds_per_pixel / threads


def _mean(old: float, new: float) -> float:
    return _KEPT * old + (1 - _KEPT) * new

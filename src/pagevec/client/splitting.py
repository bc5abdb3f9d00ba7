"""Many inputs -> requests, in order: by count, by bytes, and in halves."""

from collections.abc import Iterator, Sequence


def by_count(total: int, most: int) -> list[range]:
    """Return the positions 0 to `total` - 1 in runs of at most `most`."""
    return [range(first, min(first + most, total)) for first in range(0, total, most)]


def by_bytes(inputs: Sequence[bytes], most: int) -> Iterator[range]:
    """Yield runs of positions whose inputs have at most `most` bytes together, commas included.

    An input that is longer stands alone: whether it is too long is for the service to say.
    """
    first, size = 0, 0
    for position, one in enumerate(inputs):
        if position > first and size + len(one) + 1 > most:
            yield range(first, position)
            first, size = position, 0
        size += len(one) + 1
    if inputs:
        yield range(first, len(inputs))


def halves(run: range) -> tuple[range, range]:
    """Return the first and the second half of a run of two or more."""
    middle = run.start + len(run) // 2
    return range(run.start, middle), range(middle, run.stop)

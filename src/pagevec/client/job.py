"""A call's inputs and its answers: what is to be sent, what has come, what is missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pagevec.client._protocol import Call
from pagevec.client.splitting import by_count
from pagevec.grid import PageResizing
from pagevec.types import MultiVector

Progress = Callable[[int, int], object]
"""Called with how many inputs are answered, and how many there are."""


@dataclass
class Job:
    """All inputs of a call.

    Attributes:
        call: what is asked for; inputs: as the caller gave them.
        resizing: of the model, where pages shall be resized.
        most: inputs, and `room`: bytes of inputs, in one request.
        progress: who wants to know.
    """

    call: Call
    inputs: Sequence[Any]
    resizing: PageResizing | None
    most: int
    room: int
    progress: Progress | None = None
    _answers: dict[int, MultiVector] = field(default_factory=dict, init=False)

    @property
    def runs(self) -> list[range]:
        """The positions of the inputs, cut into runs that may be embedded in any order."""
        return by_count(len(self.inputs), self.most)

    def add(self, run: range, vectors: Sequence[MultiVector]) -> None:
        """Take the answers for a run."""
        self._answers.update(zip(run, vectors, strict=True))
        if self.progress is not None:
            self.progress(len(self._answers), len(self.inputs))

    def result(self) -> list[MultiVector]:
        """Return one multi-vector for each input, in the inputs' order.

        Raises:
            KeyError: not all are answered; that would be a fault of this package.
        """
        return [self._answers[index] for index in range(len(self.inputs))]

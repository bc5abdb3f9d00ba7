"""A program: reads and decodes each file of a folder in a process of its own, of limited memory.

It prints the file's name, what became of it, the seconds of the processor, the bytes by which the
resident memory grew, and those that the header had announced.
"""

import os
import resource
import sys
import time
from pathlib import Path

from images.peaks import measure, resident
from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.images import read_image

_SPACE = 2 << 30


class Attempt:
    """To read and to decode `data`: what became of it, and the bytes that its header announced."""

    def __init__(self, data: bytes) -> None:
        self.data, self.announced, self.outcome = data, 0, "decoded"

    def run(self) -> None:
        try:
            image = read_image(self.data)
            self.announced = image.decode_bytes
            image.decode()
        except (InvalidImage, ImageTooLarge) as error:
            self.outcome = f"{type(error).__name__}: {error}"


def main() -> None:
    limit = resident("VmSize") + _SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for file in sorted(Path(sys.argv[1]).iterdir()):
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0, file.name
            continue
        attempt, started = Attempt(file.read_bytes()), time.process_time()
        held, seconds = measure(attempt.run), time.process_time() - started
        print(file.name, attempt.outcome, seconds, held, attempt.announced, sep="\t", flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()

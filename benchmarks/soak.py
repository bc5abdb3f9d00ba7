"""A service under attack for a while: is its memory flat, are honest answers as before?"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

import click
import httpx
import numpy as np
import psutil

from benchmarks import BenchmarkFailed, data
from benchmarks.attacks import Attack, make_attacks
from benchmarks.models import MODEL, name_model
from benchmarks.report import Measurement, Table, make_command
from benchmarks.services import Service, serve_pagevec
from pagevec.types import MultiVector
from pagevec.wire.decode import decode_npz

_STRANGER = "a-key-of-a-stranger"
_ATTACKERS = 3
_SIZE = "A6"
_SAMPLE_SECONDS = 1.0
_PAUSE = 0.2  # of the honest caller, between two requests
_WARM = 0.25  # of the time counts as warm-up
_PARTS = 10
_TOLERANCE = 1e-4  # of a component; below it a sign may differ
_MIB = 1024 * 1024
_SECONDS = click.Option(["--minutes"], type=float, default=20.0, show_default=True)


@dataclass
class Honest:
    """What an honest caller got, beside what it had got before the attacks.

    Attributes:
        bodies: its requests.
        expected: the answers before the attacks.
        seconds: of each request.
        worst: largest difference of a component.
        flipped: components above the tolerance whose sign differed.
        refused: answers that were not a 200, by status.
    """

    bodies: list[bytes]
    expected: list[list[MultiVector]]
    seconds: list[float] = field(default_factory=list)
    worst: float = 0.0
    flipped: int = 0
    refused: Counter[int] = field(default_factory=Counter)

    def ask(self, service: Service, ended: threading.Event) -> None:
        """Ask in turn until `ended`."""
        with service.client() as http:
            for number in itertools.cycle(range(len(self.bodies))):
                if ended.wait(_PAUSE):
                    return
                started = time.perf_counter()
                answer = http.post("/npz/embeddings", content=self.bodies[number])
                if answer.status_code != httpx.codes.OK:
                    self.refused[answer.status_code] += 1
                    continue
                self.seconds.append(time.perf_counter() - started)
                self._compare(decode_npz(answer.content), self.expected[number])

    def _compare(self, now: list[MultiVector], before: list[MultiVector]) -> None:
        for one, other in zip(now, before, strict=True):
            self.worst = max(self.worst, float(np.abs(one - other).max()))
            clear = np.abs(other) > _TOLERANCE
            self.flipped += int(((one > 0) != (other > 0))[clear].sum())


def measure(checkpoint: Path, minutes: float) -> Measurement:
    """Attack a service with everything at once while an honest caller asks."""
    bodies = [
        *data.make_bodies("text", data.make_texts(16), 4),
        *data.make_bodies("image", data.encode_base64(data.make_pages(4, data.SIZES[_SIZE])), 2),
    ]
    outcomes: dict[str, Counter[int]] = {name: Counter() for name in make_attacks()}
    with serve_pagevec(checkpoint, other_keys=[_STRANGER]) as service:
        with service.client() as http:
            before = [
                decode_npz(http.post("/npz/embeddings", content=b).raise_for_status().content)
                for b in bodies
            ]
        honest, stranger = Honest(bodies, before), replace(service, key=_STRANGER)
        ended = threading.Event()
        attackers = [Random(seed) for seed in range(_ATTACKERS)]  # noqa: S311 - keeps no secret
        work = [
            partial(honest.ask, service, ended),
            *(partial(_attack, stranger, one, ended, outcomes) for one in attackers),
        ]
        with _running(work, ended):
            memory = _sample_memory(service.pid, minutes * 60)
    return _report(checkpoint, minutes, memory, honest, outcomes)


def _attack(
    service: Service, random: Random, ended: threading.Event, outcomes: dict[str, Counter[int]]
) -> None:
    attacks: list[tuple[str, Attack]] = list(make_attacks().items())
    while not ended.is_set():
        name, attack = random.choice(attacks)
        outcomes[name][attack(random, service)] += 1


@contextmanager
def _running(work: list[partial[None]], ended: threading.Event) -> Iterator[None]:
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(120)


def _sample_memory(pid: int, seconds: float) -> list[float]:
    """Return the MiB that the process is resident with, once a second."""
    process, end = psutil.Process(pid), time.monotonic() + seconds
    samples: list[float] = []
    while time.monotonic() < end:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise BenchmarkFailed(f"the service died after {len(samples)} s")
        samples.append(process.memory_info().rss / _MIB)
        time.sleep(_SAMPLE_SECONDS)
    return samples


def _report(
    checkpoint: Path,
    minutes: float,
    memory: list[float],
    honest: Honest,
    outcomes: dict[str, Counter[int]],
) -> Measurement:
    warm = memory[int(len(memory) * _WARM) :]
    parts = [float(np.median(part)) for part in np.array_split(warm, _PARTS)]
    growth = parts[-1] / parts[0] - 1
    attacks = [
        {
            "attack": name,
            "times": answers.total(),
            "answers": ", ".join(f"{n} x {status or '-'}" for status, n in answers.most_common()),
        }
        for name, answers in outcomes.items()
    ]
    facts = {
        "growth of the resident memory after the warm-up": f"{growth:+.1%}",
        "resident memory by tenths of that time, MiB": ", ".join(f"{mib:.0f}" for mib in parts),
        "peak, MiB": f"{max(memory):.0f}",
        "honest answers": f"{len(honest.seconds):,}",
        "honest requests refused": str(dict(honest.refused) or 0),
        "slowest and median honest answer, s": (
            f"{max(honest.seconds, default=0):.2f}, {np.median(honest.seconds or [0]):.3f}"
        ),
        "largest difference of a component": f"{honest.worst:.1e}",
        f"signs that differ above {_TOLERANCE:g}": str(honest.flipped),
    }
    return Measurement(
        "soak",
        {"model": name_model(checkpoint), "minutes": minutes},
        {
            "facts": Table(
                {"": "what", "value": "value"},
                [{"what": what, "value": value} for what, value in facts.items()],
                words=2,
            ),
            "attacks": Table(
                {"attack": "attack", "answers": "answers", "times": "times"}, attacks, words=2
            ),
        },
        {"memory_mib": memory, "growth": growth, "worst": honest.worst, "flipped": honest.flipped},
    )


main = make_command(measure, MODEL, _SECONDS)

if __name__ == "__main__":
    main()

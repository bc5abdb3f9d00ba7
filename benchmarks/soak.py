"""A service under attack for a while: is its memory flat, are honest answers as before?"""

import itertools
import threading
import time
from collections import Counter, defaultdict
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
from pagevec.types import InputType, MultiVector
from pagevec.wire.decode import decode_npz

_STRANGER = "a-key-of-a-stranger"
_ATTACKERS = 3
_PAGE = data.SIZES["A6"]
_SAMPLE_SECONDS = 1.0
_PAUSE = 0.2  # of the honest caller, between two requests
_ROUNDS = 12  # attacks, then a rest, in which only the honest caller asks
_WARM = 3  # rounds before memory counts
_REST = 0.7  # of a round: what was begun has to end, and freed memory stays for half a minute
_SETTLED = 0.5  # of a rest goes before its memory is read, for longer than it takes to be freed
_TOLERANCE = 1e-4  # of a component; below it a sign may differ
_MIB = 1024 * 1024
_SECONDS = click.Option(["--minutes"], type=float, default=20.0, show_default=True)


@dataclass(frozen=True)
class Memory:
    """What a process was resident with in a round, in MiB.

    Attributes:
        at_rest: the least at the end of the rest, between two requests of the honest caller.
        peak: the most at any time.
    """

    at_rest: float
    peak: float


@dataclass
class Honest:
    """What an honest caller got, beside what it had got before the attacks.

    Attributes:
        sent: its requests, each with what it asks for.
        expected: the answers before the attacks.
        seconds: of each request, by what it asks for.
        worst: largest difference of a component.
        flipped: components above the tolerance whose sign differed.
        refused: answers that were not a 200, by status.
    """

    sent: list[tuple[InputType, bytes]]
    expected: list[list[MultiVector]]
    seconds: dict[InputType, list[float]] = field(default_factory=lambda: defaultdict(list))
    worst: float = 0.0
    flipped: int = 0
    refused: Counter[int] = field(default_factory=Counter)

    def ask(self, service: Service, ended: threading.Event) -> None:
        """Ask in turn until `ended`."""
        with service.client() as http:
            for number in itertools.cycle(range(len(self.sent))):
                if ended.wait(_PAUSE):
                    return
                kind, body = self.sent[number]
                started = time.perf_counter()
                answer = http.post("/npz/embeddings", content=body)
                if answer.status_code != httpx.codes.OK:
                    self.refused[answer.status_code] += 1
                    continue
                self.seconds[kind].append(time.perf_counter() - started)
                self._compare(decode_npz(answer.content), self.expected[number])

    def _compare(self, now: list[MultiVector], before: list[MultiVector]) -> None:
        for one, other in zip(now, before, strict=True):
            self.worst = max(self.worst, float(np.abs(one - other).max()))
            clear = np.abs(other) > _TOLERANCE
            self.flipped += int(((one > 0) != (other > 0))[clear].sum())


def measure(checkpoint: Path, minutes: float) -> Measurement:
    """Attack a service with everything at once while an honest caller asks."""
    texts = data.make_bodies("text", data.make_texts(16), 4)
    pages = data.make_bodies("image", data.encode_base64(data.make_pages(4, _PAGE)), 2)
    sent: list[tuple[InputType, bytes]] = [("text", one) for one in texts]
    sent += [("image", one) for one in pages]
    outcomes: dict[str, Counter[int]] = {name: Counter() for name in make_attacks()}
    with serve_pagevec(checkpoint, other_keys=[_STRANGER]) as service:
        with service.client() as http:
            before = [
                decode_npz(http.post("/npz/embeddings", content=body).raise_for_status().content)
                for _, body in sent
            ]
        idle = psutil.Process(service.pid).memory_info().rss / _MIB
        honest, stranger = Honest(sent, before), replace(service, key=_STRANGER)
        ended, attacking = threading.Event(), threading.Event()
        attackers = [Random(seed) for seed in range(_ATTACKERS)]  # noqa: S311 - keeps no secret
        work = [
            partial(honest.ask, service, ended),
            *(partial(_attack, stranger, one, attacking, ended, outcomes) for one in attackers),
        ]
        with _running(work, ended):
            rounds = [_run_round(service.pid, minutes * 60, attacking) for _ in range(_ROUNDS)]
    return _report(checkpoint, minutes, idle, rounds, honest, outcomes)


def _attack(
    service: Service,
    random: Random,
    attacking: threading.Event,
    ended: threading.Event,
    outcomes: dict[str, Counter[int]],
) -> None:
    attacks: list[tuple[str, Attack]] = list(make_attacks().items())
    while not ended.is_set():
        if not attacking.wait(_SAMPLE_SECONDS):
            continue
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


def _run_round(pid: int, seconds: float, attacking: threading.Event) -> Memory:
    """Attack, then rest; return what the process was resident with."""
    rest = seconds / _ROUNDS * _REST
    attacking.set()
    under_attack = _sample_memory(pid, seconds / _ROUNDS - rest)
    attacking.clear()
    settling = _sample_memory(pid, rest * _SETTLED)
    at_rest = _sample_memory(pid, rest * (1 - _SETTLED))
    return Memory(min(at_rest), max(under_attack + settling + at_rest))


def _sample_memory(pid: int, seconds: float) -> list[float]:
    """Return the MiB that the process is resident with, once a second."""
    process, end = psutil.Process(pid), time.monotonic() + seconds
    samples: list[float] = []
    while not samples or time.monotonic() < end:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise BenchmarkFailed("the service died")
        samples.append(process.memory_info().rss / _MIB)
        time.sleep(_SAMPLE_SECONDS)
    return samples


def _report(
    checkpoint: Path,
    minutes: float,
    idle: float,
    rounds: list[Memory],
    honest: Honest,
    outcomes: dict[str, Counter[int]],
) -> Measurement:
    rests = [one.at_rest for one in rounds]
    growth = rests[-1] / rests[_WARM] - 1
    attacks = [
        {
            "attack": name,
            "times": answers.total(),
            "answers": ", ".join(f"{n} x {status or '-'}" for status, n in answers.most_common()),
        }
        for name, answers in outcomes.items()
    ]
    facts = {
        f"growth of the resident memory at rest after {_WARM} rounds": f"{growth:+.1%}",
        "resident before the attacks, MiB": f"{idle:.0f}",
        "resident at rest, by rounds, MiB": ", ".join(f"{mib:.0f}" for mib in rests),
        "peak by rounds, MiB": ", ".join(f"{one.peak:.0f}" for one in rounds),
        "honest requests refused": str(dict(honest.refused) or 0),
        **{
            f"honest {kind} requests, median, p99, slowest": (
                f"{len(seconds):,}: {np.median(seconds):.3f}, {np.quantile(seconds, 0.99):.2f}, "
                f"{max(seconds):.2f} s"
            )
            for kind, seconds in honest.seconds.items()
        },
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
        {"rests_mib": rests, "growth": growth, "worst": honest.worst, "flipped": honest.flipped},
    )


main = make_command(measure, MODEL, _SECONDS)

if __name__ == "__main__":
    main()

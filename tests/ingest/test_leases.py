"""Leases outlive a store that stumbles, and end whatever the clocks do."""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from pagevec.errors import StoreError
from pagevec.ingest.leases import Leases
from pagevec.stores import open_store
from pagevec.stores.base import Ledger, Store
from pagevec.stores.sqlite import database
from pagevec.stores.sqlite.store import FILE
from postgres_server import new_database

SECONDS = 0.6
SET_BACK = """
UPDATE pagevec_claims SET claimed_until = claimed_until + interval '1 day', seconds = %s"""


class Stumbling:
    """A real ledger that fails to lease and to release while `error` is set."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.error: Exception | None = None
        self.failed = 0

    def lease(self, document: str, worker: str, seconds: float) -> bool:
        self._stumble()
        return self._ledger.lease(document, worker, seconds)

    def release(self, document: str, worker: str) -> None:
        self._stumble()
        self._ledger.release(document, worker)

    def _stumble(self) -> None:
        if self.error is not None:
            self.failed += 1
            raise self.error


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("error", [StoreError("the server is gone"), RuntimeError("a bug")])
def test_a_store_that_stumbles(
    store: Store, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease is renewed again after failures, in time, and they are in the log."""
    ledger = Stumbling(store.ledger)
    with Leases(ledger, SECONDS) as leases, leases.hold("a") as is_mine:  # type: ignore[arg-type]
        assert is_mine
        for _ in range(3):
            ledger.error, ledger.failed = error, 0
            wait_until(lambda: ledger.failed)
            ledger.error = None
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                assert not store.ledger.lease("a", "another", SECONDS)
                time.sleep(0.05)
    assert store.ledger.lease("a", "another", SECONDS)
    said = [record.getMessage() for record in caplog.records]
    assert any(f"'a': its lease could not be renewed yet: {error}" in one for one in said)
    assert not any("has ended" in one for one in said)


def test_a_store_that_is_away_for_too_long(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A lease that ended because the store was away is said once, and is taken up again."""
    ledger = Stumbling(store.ledger)
    with Leases(ledger, SECONDS) as leases, leases.hold("a"):  # type: ignore[arg-type]
        ledger.error = StoreError("the disk is away")
        wait_until(lambda: any("has ended" in record.getMessage() for record in caplog.records))
        time.sleep(SECONDS / 2)
        ledger.error = None
        time.sleep(SECONDS / 2)
        assert not store.ledger.lease("a", "another", SECONDS)
    [ended] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the disk is away" in ended.getMessage() and "'a'" in ended.getMessage()


def test_a_lease_that_another_worker_took(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that was away for too long is told that another one has its document."""
    ledger = Stumbling(store.ledger)
    with Leases(ledger, SECONDS) as leases, leases.hold("a"):  # type: ignore[arg-type]
        ledger.error = StoreError("away")
        wait_until(lambda: store.ledger.lease("a", "another", 60))
        ledger.error = None
        wait_until(lambda: "has ended, other workers may ingest it" in caplog.text)
    assert not store.ledger.lease("a", "third", SECONDS)  # it was not released for the other one


def test_a_lease_that_cannot_be_released(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A document that is done stays done, although its lease ends by itself only."""
    ledger = Stumbling(store.ledger)
    with Leases(ledger, SECONDS) as leases:  # type: ignore[arg-type]
        with leases.hold("a"):
            ledger.error = StoreError("away")
        assert "could not be released" in caplog.text
    wait_until(lambda: store.ledger.lease("a", "another", SECONDS))


def test_a_clock_that_is_set_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed worker's lease ends in time although the wall clock was set back by a day."""
    assert store.ledger.lease("a", "killed", SECONDS)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    assert not store.ledger.lease("a", "another", SECONDS)
    time.sleep(SECONDS)
    assert store.ledger.lease("a", "another", SECONDS)


def test_a_clock_that_is_set_forward(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A living worker keeps its lease although the wall clock was set forward by a day."""
    assert store.ledger.lease("a", "living", 60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    assert not store.ledger.lease("a", "another", 60)


def test_the_machine_was_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of before a reboot, when the machine's own clock was ahead, is over at once."""
    with open_store(str(tmp_path)) as store:
        assert store.ledger.lease("a", "killed", 3600)
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() - 100_000)
        assert store.ledger.lease("a", "another", 15)
        assert not store.ledger.lease("a", "third", 15)


@pytest.mark.parametrize("seconds", [15, None])
def test_a_servers_clock_that_was_set_back(postgres: str, seconds: float | None) -> None:
    """A lease that seems to end later than any lease can is of before the clock was set back.

    Workers of earlier versions do not write how long their leases last.
    """
    url = new_database(postgres)
    with open_store(url) as store, psycopg.connect(url, autocommit=True) as connection:
        assert store.ledger.lease("a", "killed", 15)
        connection.execute(SET_BACK, [seconds])
        assert store.ledger.lease("a", "another", 15)
        assert not store.ledger.lease("a", "third", 15)


def test_a_locked_store_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real lock that is held longer than SQLite waits costs a worker no lease."""
    monkeypatch.setattr(database, "_WAIT_SECONDS", 0.1)
    with open_store(str(tmp_path)) as store, Leases(store.ledger, 2) as leases, leases.hold("a"):
        with closing(sqlite3.connect(tmp_path / FILE)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(1)
            other.rollback()
        time.sleep(1.5)
        assert not store.ledger.lease("a", "another", 2)

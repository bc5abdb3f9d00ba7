"""The pool of connections to PostgreSQL: bounded, robust, and quick to say what is wrong."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest

from pagevec.errors import StoreError
from pagevec.stores.postgres import connections
from pagevec.stores.postgres.store import PostgresStore
from vectors import page

OTHERS = """
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND backend_type = 'client backend'"""


@pytest.fixture
def url(database: str) -> str:
    return database


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.mark.parametrize("idle", [1, 8])
def test_lost_connections_are_replaced(url: str, idle: int) -> None:
    """After the server closed all idle connections, the next call works, without a long wait."""
    everyone = Barrier(idle)
    with PostgresStore(url) as store, ThreadPoolExecutor(idle) as pool:
        store.add([page("ours", 1)])
        list(pool.map(lambda _: hold_connection(store, everyone), range(idle)))
        execute(url, f"SELECT pg_terminate_backend(pid) {OTHERS}")
        start = time.monotonic()
        assert store.count() == 1
        assert time.monotonic() - start < 2


def hold_connection(store: PostgresStore, everyone: Barrier) -> None:
    """Keep a connection until each of the threads has one."""
    with store._connections.transaction():
        everyone.wait(10)


def test_connections_are_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads share few connections, and each gets its turn."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    with PostgresStore(url) as store, ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda number: store.add([page("a", number)]), range(1, 41)))
        assert store.has("a") == set(range(1, 41))
        [(in_use,)] = execute(url, f"SELECT count(*) {OTHERS}")
        assert 1 <= in_use <= 3


def test_a_wait_for_a_connection_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all connections stay in use, the error says so and after how long."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.2)
    busy = pytest.raises(StoreError, match=r"within 0\.2 s: all 1 are in use")
    with PostgresStore(url) as store, store._connections.transaction(), busy:
        store.count()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://127.0.0.1:1/nowhere",
        "postgresql:///postgres?host=/nowhere",
        "postgresql://127.0.0.1:port/nowhere",
        "postgresql://?no_such_option=1",
    ],
)
def test_a_server_that_is_not_there(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """A store that cannot be opened fails at once, with the reason on one line and a quiet log."""
    start = time.monotonic()
    with pytest.raises(StoreError, match=r"PostgreSQL: \w") as raised:
        PostgresStore(address)
    assert time.monotonic() - start < 5
    assert "\n" not in raised.value.message
    assert caplog.records == []


def test_a_wait_for_a_lock_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that another program keeps locked is an error after a while, with advice."""
    monkeypatch.setattr(connections, "_LONGEST", ["600s", "200ms"])
    with PostgresStore(url) as store, psycopg.connect(url) as other:
        other.execute("LOCK TABLE multi_vector_embeddings IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="lock timeout: another program keeps it locked"):
            store.count()
        other.rollback()
        assert store.count() == 0


def test_a_statement_that_takes_too_long(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement ends after a while; a limit that the database sets itself is left as it is."""
    monkeypatch.setattr(connections, "_LONGEST", ["200ms", "60s"])
    with PostgresStore(url) as store:
        with pytest.raises(StoreError, match="statement timeout"):
            store._connections.execute("SELECT pg_sleep(5)")
        own = "SET statement_timeout FROM CURRENT"
        [(alter,)] = execute(url, f"SELECT format('ALTER DATABASE %I {own}', current_database())")
        with psycopg.connect(url) as connection:
            connection.execute("SET statement_timeout = '3s'")
            connection.execute(alter.encode())
    with PostgresStore(url) as store:
        assert store._connections.execute("SHOW statement_timeout") == [("3s",)]

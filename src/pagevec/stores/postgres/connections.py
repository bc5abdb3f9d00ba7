"""Connections to PostgreSQL, each used by one thread at a time and kept for the next."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue
from typing import Any

import psycopg

from pagevec.errors import StoreError

Connection = psycopg.Connection[tuple[Any, ...]]


class Connections:
    """As many connections to `url` as there are transactions at once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: LifoQueue[Connection] = LifoQueue()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction: committed at the end, or undone by an exception.

        Raises:
            StoreError: the server cannot be reached, or cannot do what it is asked.
        """
        try:
            connection = self._take()
            try:
                with connection.transaction():
                    yield connection
            finally:
                self._idle.put(connection)
        except psycopg.Error as error:
            raise StoreError(f"the store in PostgreSQL: {error}") from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection on which all statements see the same rows."""
        with self.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    def close(self) -> None:
        """Close the connections that are not in use."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def _take(self) -> Connection:
        with suppress(Empty):
            while True:
                connection = self._idle.get_nowait()
                if _answers(connection):
                    return connection
        # No prepared statements: poolers such as PgBouncer hand each transaction another server.
        return psycopg.connect(self._url, autocommit=True, prepare_threshold=None)


def _answers(connection: Connection) -> bool:
    """Whether the server is still there: it may have been started again since."""
    try:
        connection.execute("")
    except psycopg.OperationalError:
        connection.close()
        return False
    return True

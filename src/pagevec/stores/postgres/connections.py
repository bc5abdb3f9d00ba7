"""Connections to PostgreSQL, from a bounded pool."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.abc import Params
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from pagevec.errors import StoreError

MAX_CONNECTIONS = 16
WAIT_SECONDS = 30.0
"""How long a transaction waits for a connection, and the pool for the server to come back."""
_CONNECT_SECONDS = 10

Connection = psycopg.Connection[tuple[Any, ...]]


class Connections:
    """Up to `MAX_CONNECTIONS` connections to the database at `url`, opened as they are needed."""

    def __init__(self, url: str) -> None:
        with _store_errors():
            self._options: dict[str, Any] = {
                "connect_timeout": _CONNECT_SECONDS,
                **conninfo_to_dict(url),
                "autocommit": True,
                # Poolers such as PgBouncer give each transaction another connection to the
                # server, which does not have the statements that were prepared on the last one.
                "prepare_threshold": None,
            }
        self._pool = ConnectionPool[Connection](
            kwargs=self._options,
            min_size=0,
            max_size=MAX_CONNECTIONS,
            timeout=WAIT_SECONDS,
            reconnect_timeout=WAIT_SECONDS,
            check=self._check,
            num_workers=1,
            open=False,
        )

    @contextmanager
    def opening(self) -> Iterator[Connection]:
        """Yield a connection of its own in a transaction, then open the pool.

        The pool would try to connect in the background until its time is up; this fails at once,
        and with the reason.

        Raises:
            StoreError: the server cannot be reached, or cannot do what it is asked.
        """
        with (
            _store_errors(),
            psycopg.connect(**self._options) as connection,
            connection.transaction(),
        ):
            yield connection
        self._pool.open()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction: committed at the end, or undone by an exception.

        Raises:
            StoreError: there is no connection within `WAIT_SECONDS`, or the server cannot do what
                it is asked.
        """
        with _store_errors(), self._pool.connection() as connection, connection.transaction():
            yield connection

    def execute(self, statement: LiteralString, values: Params = ()) -> list[tuple[Any, ...]]:
        """Execute one statement in a transaction of its own.

        Returns:
            The rows that it returns, if it returns any.

        Raises:
            StoreError: as in `transaction`.
        """
        with self.transaction() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection in a transaction in which all statements see the same rows."""
        with self.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    def close(self) -> None:
        """Close the pool, and each connection once it is not in use."""
        self._pool.close()

    def _check(self, connection: Connection) -> None:
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            # The server was restarted: the idle connections are dead, too. Left alone, the pool
            # would find that out one by one, with a longer pause after each.
            self._pool.drain()
            raise


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise StoreError(
            f"no connection to the store in PostgreSQL within {WAIT_SECONDS:g} s: all "
            f"{MAX_CONNECTIONS} are in use, or the server cannot be reached"
        ) from error
    except psycopg.Error as error:
        raise StoreError(f"the store in PostgreSQL: {' '.join(str(error).split())}") from error

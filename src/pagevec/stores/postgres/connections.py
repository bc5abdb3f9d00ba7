"""Connections to PostgreSQL, from a bounded pool."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg.abc import Params
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from pagevec.errors import StoreError
from pagevec.secrets import mask_pieces
from pagevec.stores.base import ProcessGuard

MAX_CONNECTIONS = 16
WAIT_SECONDS = 30.0
"""How long a transaction waits for a connection, and the pool for the server to come back."""
_CONNECT_SECONDS = 10
_LONGEST = ["600s", "60s"]
"""A statement, which may read the bits of a large store, and a wait for another's lock."""

# A server that is gone without a word is noticed after about a minute.
_KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# For this transaction alone: behind a pooler others get the same connection after it. What the
# role or the database limits already stays.
_LIMITS = """
SELECT set_config(name, most, true)
FROM unnest(ARRAY['statement_timeout', 'lock_timeout'], %s::text[]) AS limits (name, most)
WHERE current_setting(name) = '0'"""
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

# What to do about an error, by its class; the first one that fits counts.
_ADVICE: dict[type[psycopg.Error], str] = {
    psycopg.errors.InsufficientPrivilege: "this role may not do that; a search needs SELECT alone",
    psycopg.errors.ReadOnlySqlTransaction: "the database can be searched, but not be written to",
    psycopg.errors.LockNotAvailable: "another program keeps it locked; try again when it is done",
    psycopg.errors.QueryCanceled: "the server is too busy, or its limit is too low",
    psycopg.errors.DiskFull: "make room on the server's disk, then try again",
}

Connection = psycopg.Connection[tuple[Any, ...]]


class Connections:
    """Up to `MAX_CONNECTIONS` connections to the database at `url`, opened as they are needed."""

    def __init__(self, url: str) -> None:
        self._guard = ProcessGuard("the store in PostgreSQL")
        self._url = url
        with self._store_errors():
            self._options: dict[str, Any] = {
                "connect_timeout": _CONNECT_SECONDS,
                **_KEEPALIVES,
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
            self._store_errors(),
            psycopg.connect(**self._options) as connection,
            connection.transaction(),
        ):
            connection.execute(_LIMITS, (_LONGEST,))
            yield connection
        self._pool.open()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction: committed at the end, or undone by an exception.

        Raises:
            StoreError: there is no connection within `WAIT_SECONDS`, the server cannot do what
                it is asked, or this process was forked from the one that opened the store.
        """
        with self._store_errors(), self._begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection in a transaction in which all statements see the same rows."""
        with self._store_errors(), self._begin(_SNAPSHOT) as connection:
            yield connection

    def execute(
        self, statement: LiteralString, values: Params = (), *, is_optional: bool = False
    ) -> list[tuple[Any, ...]]:
        """Execute one statement in a transaction of its own.

        Args:
            statement: SQL.
            values: of its parameters.
            is_optional: whether a table that is missing is taken for an empty one.

        Returns:
            The rows that it returns, if it returns any.

        Raises:
            StoreError: as in `transaction`.
        """
        missing = [psycopg.errors.UndefinedTable] if is_optional else []
        with self._store_errors(), suppress(*missing), self._begin() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
        return []

    def check_process(self) -> None:
        """Raise StoreError if this process was forked from the one that opened the store."""
        self._guard.check()

    @contextmanager
    def _begin(self, *settings: LiteralString) -> Iterator[Connection]:
        self.check_process()
        with self._pool.connection() as connection, connection.transaction():
            for setting in settings:
                connection.execute(setting)
            connection.execute(_LIMITS, (_LONGEST,))
            yield connection

    def close(self) -> None:
        """Close this process's pool, and each connection once it is not in use."""
        if self._guard.is_at_home():
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
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise StoreError(
                f"no connection to the store in PostgreSQL within {WAIT_SECONDS:g} s: all "
                f"{MAX_CONNECTIONS} are in use, or the server cannot be reached"
            ) from error
        except psycopg.Error as error:
            advice = next((what for kind, what in _ADVICE.items() if isinstance(error, kind)), None)
            said = f"{error.diag.message_primary}: {advice}" if advice else str(error)
            reason = mask_pieces(" ".join(said.split()), self._url)
            raise StoreError(f"the store in PostgreSQL: {reason}") from error

"""The tables: morphik-core's, created as morphik-core does and never altered, and pagevec's own.

Pages with vectors of 128 dimensions are in morphik-core's table. A row of `pagevec_pages` belongs
to the row there whose `id` is its `row`; without one it is left over, and is swept when a store is
opened. Nothing references morphik-core's table, because a foreign key would put triggers on it.
Pages of any other dimension are in `pagevec_whole_pages` alone. The words of both are in tables
beside these (`words`).
"""

from dataclasses import dataclass
from typing import LiteralString

from pagevec.stores.postgres import words
from pagevec.stores.postgres.connections import Connection

# Any number will do: only one process at a time creates the tables.
_LOCK = 0x70616765766563

_THEIR_TABLE = """
CREATE TABLE IF NOT EXISTS multi_vector_embeddings (
    id BIGSERIAL PRIMARY KEY,
    document_id TEXT NOT NULL,
    chunk_number INTEGER NOT NULL,
    content TEXT NOT NULL,
    chunk_metadata TEXT,
    embeddings BIT(128)[]
)"""

_THEIR_INDEX = """
CREATE INDEX IF NOT EXISTS idx_multi_vector_document_id ON multi_vector_embeddings (document_id)"""

# The check that morphik-core makes: an existing function is never replaced.
_HAS_MAX_SIM = """
SELECT EXISTS (
    SELECT FROM pg_proc WHERE proname = 'max_sim'
    AND pg_get_function_arguments(oid) = 'document bit[], query bit[]'
)"""

_MAX_SIM = """
CREATE FUNCTION public.max_sim(document bit[], query bit[]) RETURNS double precision
LANGUAGE SQL IMMUTABLE PARALLEL SAFE AS $$
    WITH queries AS (
        SELECT row_number() OVER () AS query_number, *
        FROM (SELECT unnest(query) AS query) AS foo
    ),
    documents AS (SELECT unnest(document) AS document),
    similarities AS (
        SELECT query_number, 1.0 - (
            bit_count(document # query)::float / greatest(bit_length(query), 1)::float
        ) AS similarity
        FROM queries CROSS JOIN documents
    ),
    max_similarities AS (
        SELECT MAX(similarity) AS max_similarity FROM similarities GROUP BY query_number
    )
    SELECT COALESCE(SUM(max_similarity), 0.0) FROM max_similarities
$$"""

# `signs` is a digest of the row's bits: where the bits differ by now, our vectors are outdated.
# Quantized vectors do not compress; EXTERNAL saves the attempt. Two tables have kept old names:
# `pagevec_claims`, which holds the leases, and `pagevec_probe`, which holds the fingerprint.
_OURS = """
CREATE TABLE IF NOT EXISTS pagevec_pages (
    row BIGINT PRIMARY KEY,
    document TEXT NOT NULL,
    number INTEGER NOT NULL,
    signs BYTEA NOT NULL,
    format TEXT NOT NULL,
    vectors BYTEA,
    thumbnail BYTEA,
    grid INTEGER[],
    UNIQUE (document, number)
);
ALTER TABLE pagevec_pages
    ALTER COLUMN vectors SET STORAGE EXTERNAL,
    ALTER COLUMN thumbnail SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS pagevec_documents (
    name TEXT PRIMARY KEY,
    content_hash TEXT NOT NULL,
    pages INTEGER,
    complete BOOLEAN NOT NULL,
    error TEXT
);
CREATE TABLE IF NOT EXISTS pagevec_claims (
    document TEXT PRIMARY KEY,
    claimed_by TEXT NOT NULL,
    claimed_until TIMESTAMPTZ NOT NULL
)"""

# Newer than the tables above. `pagevec_probe` has one row at most: `single` is true, and unique.
# `signs` are the sign bits themselves here. Bits do not compress either.
_LATER = """
CREATE TABLE IF NOT EXISTS pagevec_probe (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    vectors BYTEA NOT NULL
);
CREATE TABLE IF NOT EXISTS pagevec_labels (
    label TEXT PRIMARY KEY,
    folder TEXT NOT NULL
);
ALTER TABLE pagevec_claims ADD COLUMN IF NOT EXISTS seconds DOUBLE PRECISION;
ALTER TABLE pagevec_documents ADD COLUMN IF NOT EXISTS version TEXT;
ALTER TABLE pagevec_probe ADD COLUMN IF NOT EXISTS dim INTEGER NOT NULL DEFAULT 128;
CREATE TABLE IF NOT EXISTS pagevec_whole_pages (
    id BIGSERIAL PRIMARY KEY,
    document TEXT NOT NULL,
    number INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    signs BYTEA NOT NULL,
    format TEXT NOT NULL,
    vectors BYTEA,
    thumbnail BYTEA,
    grid INTEGER[],
    UNIQUE (document, number)
);
ALTER TABLE pagevec_whole_pages
    ALTER COLUMN signs SET STORAGE EXTERNAL,
    ALTER COLUMN vectors SET STORAGE EXTERNAL,
    ALTER COLUMN thumbnail SET STORAGE EXTERNAL"""

# Newer still: near-duplicate vectors are kept once (`stores.condense`).
_CONDENSED = """
ALTER TABLE pagevec_pages ADD COLUMN IF NOT EXISTS token_rows BYTEA;
ALTER TABLE pagevec_whole_pages ADD COLUMN IF NOT EXISTS token_rows BYTEA;
CREATE TABLE IF NOT EXISTS pagevec_condensing (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    threshold DOUBLE PRECISION NOT NULL
)"""

# What searching needs; the tables of `_LATER` may be missing.
_IS_READABLE = """
SELECT to_regclass('multi_vector_embeddings') IS NOT NULL
    AND to_regclass('pagevec_pages') IS NOT NULL AND to_regclass('pagevec_documents') IS NOT NULL"""

_IS_COMPLETE = """
SELECT to_regclass('pagevec_probe') IS NOT NULL AND to_regclass('pagevec_labels') IS NOT NULL
    AND to_regclass('pagevec_whole_pages') IS NOT NULL
    AND (
        SELECT count(*) = 3 FROM pg_attribute
        WHERE (attrelid, attname) IN (
            (to_regclass('pagevec_claims'), 'seconds'),
            (to_regclass('pagevec_documents'), 'version'),
            (to_regclass('pagevec_probe'), 'dim')
        )
    )"""

_CONDENSES = "SELECT to_regclass('pagevec_condensing') IS NOT NULL"

_MAY_WRITE = """
SELECT current_setting('transaction_read_only') = 'off'
    AND coalesce(has_table_privilege(to_regclass('pagevec_pages'), 'DELETE'), true)"""

_DIMENSION = "SELECT dim FROM pagevec_whole_pages LIMIT 1"

_HAS_SHARED_PAGES = """
SELECT EXISTS (SELECT FROM multi_vector_embeddings WHERE embeddings IS NOT NULL)"""

_HAS_SHARED_PAGES_OF_OURS = """
SELECT EXISTS (SELECT FROM multi_vector_embeddings JOIN pagevec_pages ON row = id)"""

_SWEEP = """
DELETE FROM pagevec_pages WHERE row IN (
    SELECT row FROM pagevec_pages AS ours
    WHERE NOT EXISTS (SELECT FROM multi_vector_embeddings WHERE id = ours.row)
    FOR UPDATE SKIP LOCKED
)"""


def has_pages_table(connection: Connection) -> bool:
    """Whether the database has the table of pages, whoever created it."""
    return _holds(connection, "SELECT to_regclass('multi_vector_embeddings') IS NOT NULL")


@dataclass(frozen=True)
class Abilities:
    """What the tables can hold; those of a former version that cannot be written lack some of it.

    Attributes:
        other_dimensions: pages of other dimensions than 128, and which model made all of them.
        token_rows: pages of which near-duplicate vectors are kept once.
        words: the words of pages.
    """

    other_dimensions: bool = True
    token_rows: bool = True
    words: bool = True


def prepare(connection: Connection) -> Abilities:
    """Create what is missing, and sweep rows whose row in morphik-core's table is gone.

    Nothing is done by a role that may only read, or on a standby, and nothing is created that is
    there: PostgreSQL asks for the right to create tables even then.

    Returns:
        What the tables can hold; all of it, unless they cannot be written.
    """
    is_readable, is_complete, condenses = (
        _holds(connection, condition) for condition in (_IS_READABLE, _IS_COMPLETE, _CONDENSES)
    )
    if is_readable and not _holds(connection, _MAY_WRITE):
        return Abilities(is_complete, condenses, words.are_readable(connection))
    if not (
        is_readable
        and is_complete
        and condenses
        and _holds(connection, _HAS_MAX_SIM)
        and words.are_readable(connection)
    ):
        _create(connection)
    connection.execute(_SWEEP)
    return Abilities()


def whole_pages_dimension(connection: Connection) -> int | None:
    """Return the dimension of the pages in `pagevec_whole_pages`, or None if it has none."""
    row = connection.execute(_DIMENSION).fetchone()
    return row[0] if row else None


def has_shared_pages(connection: Connection, *, of_ours: bool = False) -> bool:
    """Whether morphik-core's table has pages, or such that pagevec wrote there."""
    return _holds(connection, _HAS_SHARED_PAGES_OF_OURS if of_ours else _HAS_SHARED_PAGES)


def _create(connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    connection.execute(_THEIR_TABLE)
    connection.execute(_THEIR_INDEX)
    if not _holds(connection, _HAS_MAX_SIM):
        connection.execute(_MAX_SIM)
    if not _holds(connection, "SELECT to_regclass('pagevec_claims') IS NOT NULL"):
        connection.execute(_OURS)
    connection.execute(_LATER)
    words.create_tables(connection)
    connection.execute(_CONDENSED)


def _holds(connection: Connection, condition: LiteralString) -> bool:
    return connection.execute(condition).fetchone() == (True,)

"""The tables: morphik-core's, made as morphik-core makes it and never changed, and ours beside it.

There is no reference from our tables to theirs: it would put triggers on theirs. A row of ours
belongs to the row of theirs with its `row` as `id`; where that is gone, ours is rubbish.
"""

from pagevec.stores.postgres.connections import Connection

# Any number: only one process at a time makes the tables.
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

# As morphik-core looks for it: an existing one is never replaced.
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

# `signs` is a digest of the row's bits: where theirs are other ones, our vectors are outdated.
# Quantized vectors do not compress: EXTERNAL saves the attempt.
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

# One row at most: `single` is always true, and unique.
_PROBE = """
CREATE TABLE IF NOT EXISTS pagevec_probe (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    vectors BYTEA NOT NULL
)"""

_SWEEP = """
DELETE FROM pagevec_pages WHERE row IN (
    SELECT row FROM pagevec_pages AS ours
    WHERE NOT EXISTS (SELECT FROM multi_vector_embeddings WHERE id = ours.row)
    FOR UPDATE SKIP LOCKED
)"""


def prepare(connection: Connection) -> None:
    """Make the tables that are not there, and remove rows of ours whose row of theirs is gone."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    connection.execute(_THEIR_TABLE)
    connection.execute(_THEIR_INDEX)
    if connection.execute(_HAS_MAX_SIM).fetchone() == (False,):
        connection.execute(_MAX_SIM)
    if connection.execute("SELECT to_regclass('pagevec_claims') IS NULL").fetchone() == (True,):
        connection.execute(_OURS)
    connection.execute(_PROBE)
    connection.execute(_SWEEP)

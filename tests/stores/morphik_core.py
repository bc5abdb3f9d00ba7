"""morphik-core as the tests see it: a connection of its own, and rows as it writes them."""

from typing import Any

import psycopg

from pagevec.types import MultiVector

Connection = psycopg.Connection[tuple[Any, ...]]


def literal(vectors: MultiVector) -> str:
    """Return a BIT(128)[] as morphik-core sends it: 1 where a component is above 0."""
    return "{" + ",".join("".join("01"[int(v > 0)] for v in row) for row in vectors) + "}"


_TABLE = "'multi_vector_embeddings'::regclass"
_RELATIONS = """(
    SELECT {table} UNION SELECT indexrelid FROM pg_index WHERE indrelid = {table}
    UNION SELECT pg_get_serial_sequence('multi_vector_embeddings', 'id')::regclass
)"""
# Of `pg_class` without what the server counts and freezes by itself.
_CATALOGS = {
    "relations": "SELECT oid, relname, relnamespace, reltype, relowner, relam, relfilenode,"
    " reltablespace, reltoastrelid, relpersistence, relkind, relnatts, relchecks, relhasrules,"
    " relhastriggers, relrowsecurity, relispartition, relreplident, relacl, reloptions"
    " FROM pg_class WHERE oid IN {relations} ORDER BY oid",
    "columns": "SELECT * FROM pg_attribute WHERE attrelid IN {relations} ORDER BY attrelid, attnum",
    "defaults": "SELECT * FROM pg_attrdef WHERE adrelid = {table} ORDER BY oid",
    "constraints": "SELECT * FROM pg_constraint WHERE conrelid = {table} ORDER BY oid",
    "indexes": "SELECT * FROM pg_index WHERE indrelid = {table} ORDER BY indexrelid",
    "triggers": "SELECT * FROM pg_trigger WHERE tgrelid = {table} OR tgconstrrelid = {table}",
    "rules": "SELECT * FROM pg_rewrite WHERE ev_class = {table}",
    "sequences": "SELECT * FROM pg_sequence WHERE seqrelid IN {relations}",
    "comments": "SELECT * FROM pg_description WHERE objoid IN {relations}",
    "functions": "SELECT *, xmin::text, pg_get_functiondef(oid) FROM pg_proc"
    " WHERE proname = 'max_sim'",
}


def describe(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that the catalog knows of morphik-core's table and function.

    Oids and numbers of files are among it: what was dropped and made again is another one.
    """
    parts = {"table": _TABLE, "relations": _RELATIONS.format(table=_TABLE)}
    return {
        name: connection.execute(query.format(**parts).encode()).fetchall()
        for name, query in _CATALOGS.items()
    }


def insert(
    connection: Connection, document: str, chunk: int, vectors: MultiVector, meta: str = "{}"
) -> None:
    connection.execute(
        "INSERT INTO multi_vector_embeddings"
        " (document_id, chunk_number, content, chunk_metadata, embeddings) VALUES (%s,%s,%s,%s,%s)",
        (document, chunk, "app/doc/0.png", meta, literal(vectors)),
    )

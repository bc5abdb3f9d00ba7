"""morphik-core as the tests see it: a connection of its own, and rows as it writes them."""

from typing import Any

import psycopg

from pagevec.types import MultiVector

Connection = psycopg.Connection[tuple[Any, ...]]


def literal(vectors: MultiVector) -> str:
    """Return a BIT(128)[] as morphik-core sends it: 1 where a component is above 0."""
    return "{" + ",".join("".join("01"[int(v > 0)] for v in row) for row in vectors) + "}"


def insert(
    connection: Connection, document: str, chunk: int, vectors: MultiVector, meta: str = "{}"
) -> None:
    connection.execute(
        "INSERT INTO multi_vector_embeddings"
        " (document_id, chunk_number, content, chunk_metadata, embeddings) VALUES (%s,%s,%s,%s,%s)",
        (document, chunk, "app/doc/0.png", meta, literal(vectors)),
    )

"""The store in PostgreSQL, in morphik-core's own table where that has room for the vectors."""

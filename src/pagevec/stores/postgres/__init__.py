"""The store in PostgreSQL, in morphik-core's own table."""

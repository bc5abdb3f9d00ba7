"""The store in SQLite: one file in a folder."""

"""The embedded store: one SQLite file in a folder."""

"""The store in SQLite: one file in a folder, and its bits in another where that pays."""

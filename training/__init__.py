"""Trains the bundled model from scratch, on text that it renders itself. See README.md."""

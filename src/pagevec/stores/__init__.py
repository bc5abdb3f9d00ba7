"""Stores: pages and their multi-vectors, kept and found again. No torch here."""

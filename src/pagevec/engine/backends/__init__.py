"""Backends: what runs a model on a batch."""

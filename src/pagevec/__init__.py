"""pagevec: document pages in, ColPali multi-vectors out."""

__version__ = "0.1.0"

"""BM25 over the text layer: retrieval where the text is known and need not be read."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.words import folded

_WORD = re.compile(r"[^\W_]+(?:[-./_,%][^\W_]+)*%?")


def bm25_scores(queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
    """Return BM25's scores (queries, texts), words compared without case and accents."""
    import bm25s

    model = bm25s.BM25()
    model.index([words_of(text) for text in texts], show_progress=False)
    table = np.zeros((len(queries), len(texts)), np.float32)
    for row, query in enumerate(queries):
        known = [word for word in words_of(query) if word in model.vocab_dict]
        if known:
            table[row] = model.get_scores(known)
    return table


def words_of(text: str) -> list[str]:
    """Return the words of a text, and its numbers and part numbers, each whole."""
    return _WORD.findall(folded(text))

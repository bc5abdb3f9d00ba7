"""Which part of a text each of its tokens stands for."""

from typing import Any

from pagevec.types import Token

_MARK = "\ue000"  # a private character, which no prompt contains

Span = tuple[int, int]
"""Start and end of a token, in characters."""


class TokenSpeller:
    """Spells the tokens of texts that a colpali-engine processor prepares as queries.

    A processor composes a prompt, the text and augmentation tokens, each family in its own way, and
    then calls its tokenizer. The speller looks at that call: the string is the one that was
    tokenized, and a string composed around a mark shows where in it the text begins.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._around, _ = self._record(_MARK)

    def spell(self, text: str, ids: list[int]) -> list[Token]:
        """Return one token for each of `ids`. Not thread-safe, as the processor is not.

        Prompt and augmentation tokens have no position in the text. Where the tokenizer encodes
        `text` otherwise, or gives no offsets, no token has one.

        Args:
            text: the caller's text.
            ids: its tokens, as they were prepared for the model.
        """
        spans = self._find_spans(text, ids) or [None] * len(ids)
        spelled = [self._processor.tokenizer.decode([one]) for one in ids]
        return [Token(word, *(span or ())) for word, span in zip(spelled, spans, strict=True)]

    def _find_spans(self, text: str, ids: list[int]) -> list[Span | None] | None:
        composed, encoding = self._record(text)
        before, _, after = self._around.partition(_MARK)
        part = composed[len(before) : len(composed) - len(after)]
        # A chat template may have stripped the text.
        is_text = part in text and part.strip() == text.strip()
        if not is_text or before + part + after != composed:
            return None
        if not encoding.is_fast or encoding.encodings[0].ids != ids:
            return None
        shift = text.index(part)
        offsets = encoding.encodings[0].offsets
        return [
            _place(start - len(before), end - len(before), part, shift) for start, end in offsets
        ]

    def _record(self, text: str) -> tuple[str, Any]:
        """Process `text` as a query; return the string that is tokenized, and its encoding."""
        recorder = _RecordingTokenizer(self._processor.tokenizer)
        self._processor.tokenizer = recorder
        try:
            self._processor.process_queries([text])
        finally:
            self._processor.tokenizer = recorder.tokenizer
        return recorder.text, recorder.encoding


class _RecordingTokenizer:
    """Stands in for a tokenizer and keeps what it is called with."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.text = ""
        self.encoding: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, text: Any, **options: Any) -> Any:
        self.text = text if isinstance(text, str) else text[0]
        self.encoding = self.tokenizer(text, **options)
        return self.encoding


def _place(start: int, end: int, part: str, shift: int) -> Span | None:
    """Return the part of a token that is in the text, without white space at its ends.

    Args:
        start: where the token begins in `part`; below 0 if before it.
        end: where it ends.
        part: the text, as it was tokenized.
        shift: where `part` begins in the caller's text.
    """
    start, end = max(start, 0), min(end, len(part))
    piece = part[start:end] if start < end else ""
    if piece.strip():
        start += len(piece) - len(piece.lstrip())
        end -= len(piece) - len(piece.rstrip())
    return (start + shift, end + shift) if piece else None

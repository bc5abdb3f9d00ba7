"""A small vocabulary: a tokenizer and the files that describe it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .files import Files, Json

_WORDS = ("the", "image", "Describe", "describe", "query", "user", "system", "page", "ing", "er")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and how its family's `tokenizer_config.json` describes it.

    Attributes:
        special_map: `special_tokens_map.json`, which transformers 5 no longer writes.
    """

    tokenizer: Tokenizer
    config: Json
    special_map: Json | None

    def id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        assert number is not None, token
        return int(number)

    @property
    def size(self) -> int:
        """The embedding's rows: as in the real models, a few more than there are tokens."""
        return (int(self.tokenizer.get_vocab_size()) // 32 + 1) * 32

    @property
    def files(self) -> Files:
        tokenizer = self.tokenizer.to_str(pretty=True)
        if self.special_map is None:
            return {"tokenizer.json": tokenizer, "tokenizer_config.json": self.config}
        decoder = {
            str(number): {
                "content": token.content,
                "lstrip": False,
                "normalized": token.normalized,
                "rstrip": False,
                "single_word": False,
                "special": token.special,
            }
            for number, token in sorted(self.tokenizer.get_added_tokens_decoder().items())
        }
        return {
            "tokenizer.json": tokenizer,
            "tokenizer_config.json": {"added_tokens_decoder": decoder, **self.config},
            "special_tokens_map.json": self.special_map,
        }


def bpe(
    first: Iterable[str], symbols: Iterable[str], *, space: str, breaks: str, **options: Any
) -> Tokenizer:
    """Return a tokenizer of `symbols`, a few words, with and without a space, and two line breaks.

    Args:
        first: Tokens that come before the symbols.
        symbols: What any text consists of.
        space: The symbol of a space.
        breaks: The symbols of two line breaks.
        options: More for `tokenizers.models.BPE`.
    """
    vocabulary = {token: number for number, token in enumerate([*first, *symbols])}
    merges: list[tuple[str, str]] = []
    words = [spaced for word in _WORDS for spaced in (word, space + word)]
    for word in [*words, breaks]:
        piece = word[0]
        for letter in word[1:]:  # merged from the left
            if piece + letter not in vocabulary:
                merges.append((piece, letter))
                vocabulary[piece + letter] = len(vocabulary)
            piece += letter
    return Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **options))


def byte_level(first: Iterable[str] = ()) -> Tokenizer:
    """Return a tokenizer that sees a text as bytes, as GPT-2's does."""
    tokenizer = bpe(first, sorted(pre_tokenizers.ByteLevel.alphabet()), space="Ġ", breaks="ĊĊ")
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def add_tokens(tokenizer: Tokenizer, special: Iterable[str], plain: Iterable[str] = ()) -> None:
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in plain])

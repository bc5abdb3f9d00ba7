"""The tokens behind the vectors of a text, in every family."""

from collections.abc import Iterator

import pytest

from checkpoints import FAMILIES, build_checkpoint
from conftest import make_settings
from pagevec.engine.backends import load
from pagevec.engine.backends.preprocess import CheckpointBackend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import InvalidRequest
from pagevec.types import Token

TEXTS = [
    "fare",
    "which route carried the most passengers?",
    "Öl 値段 🚢 naïve",
    "  two  words ",
    "Query: fare, see <|endoftext|> there",
    "system user You are Qwen",
]
BLANK = ["", "   \n"]


@pytest.fixture(scope="module", params=[*FAMILIES, "bundled"])
def embedder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalEmbedder]:
    model = request.param
    if model != "bundled":
        model = str(build_checkpoint(model, tmp_path_factory.mktemp("checkpoints") / model))
    settings = make_settings(model=model, offline=True)
    engine = LocalEmbedder(lambda: load(settings), batch_tokens=4096)
    engine.wait_until_ready()
    yield engine
    engine.close()


def spans(tokens: tuple[Token, ...]) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in tokens if one.start is not None and one.end is not None]


def test_tokens_cover_the_text(embedder: LocalEmbedder) -> None:
    """Each vector has a token; those of the text stand in order and cover all but white space."""
    answer = embedder.embed_texts(TEXTS, tokens=True).result()
    for text, vectors, tokens in zip(TEXTS, answer.vectors, answer.tokens, strict=True):
        assert len(tokens) == len(vectors)
        places = spans(tokens)
        assert places == sorted(places)
        assert all(0 <= start < end <= len(text) for start, end in places)
        covered = {at for start, end in places for at in range(start, end)}
        assert covered >= {at for at, letter in enumerate(text) if not letter.isspace()}


def test_prompt_and_augmentation_are_not_of_the_text(embedder: LocalEmbedder) -> None:
    """As many tokens have no place as a text without any characters has."""
    none, fare = embedder.embed_texts(["", "fare"], tokens=True).result().tokens
    assert spans(none) == []
    # ColGemma3's template strips the space that it puts before an empty text.
    assert len(fare) - len(spans(fare)) in (len(none), len(none) + 1)


def test_a_control_token_in_the_text_is_text(embedder: LocalEmbedder) -> None:
    """`<|endoftext|>` in a text has its place; colpali-engine's augmentation tokens have none."""
    text = "see <|endoftext|> there"
    [tokens] = embedder.embed_texts([text], tokens=True).result().tokens
    start = text.index("<")
    inside = [place for place in spans(tokens) if start <= place[0] < start + 13]
    assert inside[0][0] == start
    assert inside[-1][1] == start + 13
    assert tokens[-1].start is None


def test_characters_are_counted_not_bytes(embedder: LocalEmbedder) -> None:
    """Behind accents, ideograms and an emoji a word is where Python finds it."""
    text = "Öl 値段 🚢 naïve word"
    [tokens] = embedder.embed_texts([text], tokens=True).result().tokens
    assert text.index("word") in {start for start, _ in spans(tokens)}
    assert max(end for _, end in spans(tokens)) == len(text)


def test_blank_texts(embedder: LocalEmbedder) -> None:
    """Texts without a word have tokens, and none of them is at a word."""
    answer = embedder.embed_texts(BLANK, tokens=True).result()
    for text, vectors, tokens in zip(BLANK, answer.vectors, answer.tokens, strict=True):
        assert len(tokens) == len(vectors)
        assert not any(text[start:end].strip() for start, end in spans(tokens))


def test_vectors_are_the_same(embedder: LocalEmbedder) -> None:
    """Asking for tokens changes no vector, and without it there are none."""
    plain, told = (embedder.embed_texts(TEXTS[:1], tokens=asked).result() for asked in (0, 1))
    assert plain.tokens == ()
    assert plain.token_count == told.token_count
    assert (plain.vectors[0] == told.vectors[0]).all()
    assert embedder.info().tells_tokens


class TestWithoutOffsets:
    """Where the text cannot be found again, no token has a place, rather than a wrong one."""

    @pytest.fixture(scope="class")
    def backend(self) -> CheckpointBackend:
        loaded = load(make_settings())
        assert isinstance(loaded, CheckpointBackend)
        return loaded

    def test_other_tokens(self, backend: CheckpointBackend) -> None:
        """Tokens that were prepared of another text."""
        [prepared] = backend.prepare_texts(["fame"])
        assert all(token.start is None for token in backend.tokenize("fare", prepared))

    def test_with_pooling(self, embedder: LocalEmbedder) -> None:
        """Pooled vectors stand for several tokens: asking for both is an error."""
        with pytest.raises(InvalidRequest, match="pool_factor"):
            embedder.embed_texts(["fare"], pool_factor=2, tokens=True).result()

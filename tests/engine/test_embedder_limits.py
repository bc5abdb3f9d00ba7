"""The embedder on this machine: large requests in parts, limits in bytes, a lost device."""

from pathlib import Path

import pytest

from engine.test_embedder import assert_same, engine, pages
from hostile.lost_device import LOST, LostDevice
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import LoadedModel
from pagevec.errors import EngineFailed, TextTooLong, TooMuchWork


class TestParts:
    """Large requests are prepared in parts, between which others have a turn."""

    def test_parts_make_one_answer(self, embedder: LocalEmbedder) -> None:
        """Texts of several parts come back in order, each as if it were alone."""
        texts = [f"{n} " + "z" * 1500 for n in range(24)]
        together = embedder.embed_texts(texts).result()
        assert_same(together, [embedder.embed_texts([text]).result() for text in texts])

    def test_tokens_of_parts(self, embedder: LocalEmbedder) -> None:
        """Each text has its own tokens, whichever part it was in."""
        texts = [f"{n}" + "z" * 1500 for n in range(24)]
        answer = embedder.embed_texts(texts, tokens=True).result()
        for text, tokens in zip(texts, answer.tokens, strict=True):
            assert "".join(text[one.start : one.end] for one in tokens if one.end) == text

    def test_the_text_to_blame_is_named_by_its_place_in_the_request(self) -> None:
        """The index of an error counts all texts, not those of its part."""

        def shorten(model: LoadedModel) -> None:
            model.model.config.get_text_config().max_position_embeddings = 15_000

        texts = ["a" * 14_000] * 5 + ["b" * 16_000]
        with engine(shorten) as embedder, pytest.raises(TextTooLong) as error:
            embedder.embed_texts(texts).result()
        assert error.value.index == 5

    def test_another_callers_query_passes_between(self) -> None:
        """A query is answered while a large request of another caller is still tokenized."""
        with engine(request_seconds=1e6) as embedder:
            large = embedder.embed_texts(["word " * 400] * 2000, caller="heavy")
            light = embedder.embed_texts(["a query"], caller="light")
            assert len(light.result(60).vectors) == 1
            assert embedder.health().queued_tokens == 0  # the other one is not prepared yet
            assert large.cancel()


class TestBytes:
    """What answers and poolings take is known before the model runs."""

    def test_the_answer(self) -> None:
        """Too many vectors for the form of the answer that is asked for are refused."""
        with engine(max_answer_bytes=100_000) as embedder:
            text = "many words " * 20
            with pytest.raises(TooMuchWork, match="answer"):
                embedder.embed_texts([text], vector_bytes=1500).result()
            assert embedder.embed_texts([text], vector_bytes=256).result().vectors
            assert embedder.embed_texts([text], 4, vector_bytes=1500).result().vectors

    def test_a_picture(self) -> None:
        """A picture that takes more than may be taken at once is refused by its index."""
        with engine(max_working_bytes=10_000_000) as embedder:
            small, large = pages((100, 100), (2000, 1500))
            assert embedder.embed_images([small]).result().vectors
            with pytest.raises(TooMuchWork) as error:
                embedder.embed_images([small, large]).result()
            assert error.value.index == 1

    def test_a_pooling(self) -> None:
        """A text whose vectors take too much to be pooled is refused; without pooling it is not."""
        with engine(max_working_bytes=1024**2) as embedder:
            text = "x" * 500
            with pytest.raises(TooMuchWork) as error:
                embedder.embed_texts(["short", text], 2).result()
            assert error.value.index == 1
            assert embedder.embed_texts(["short", text]).result().vectors


class TestLostDevice:
    """A device that is lost for good."""

    def test_all_requests_fail_for_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those that wait, and those to come; `failed` is set, and closing does not hang."""
        monkeypatch.chdir(tmp_path)  # where the backend notes that it was lost
        lost = LostDevice()
        embedder = LocalEmbedder(lambda: lost)
        embedder.wait_until_ready()
        taken = [embedder.embed_images(pages((400, 500))) for _ in range(20)]
        fatal = embedder.embed_texts([LOST.decode()])
        with pytest.raises(EngineFailed) as error:
            fatal.result(10)
        assert error.value.retry_after is None
        assert embedder.failed.wait(10)
        for one in taken:
            assert one.exception(10) is None or isinstance(one.exception(), EngineFailed)
        with pytest.raises(EngineFailed):
            embedder.embed_texts(["later"]).result(10)
        with pytest.raises(EngineFailed):
            embedder.info()
        assert embedder.health().state == "failed"
        embedder.close()

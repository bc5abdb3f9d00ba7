"""Backends: which inputs a batch may hold, and a user's own behind the whole engine."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import build_checkpoint
from conftest import Service, make_settings, png, running
from engine.hash_backend import HashBackend, Words, embed, hash_page
from pagevec.engine.backends import load
from pagevec.engine.backends.base import Backend, BatchHints, Device
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError, InternalError, OutOfMemory
from pagevec.images import EncodedImage, read_image
from pagevec.types import MultiVector, Token
from processes import environment, run_to_the_end, serving

ROOT = Path(__file__).parents[2]
TEXTS = [f"text number {n:02}" for n in range(40)]


@contextmanager
def serve(backend: Any, **options: Any) -> Iterator[LocalEmbedder]:
    """Yield a ready embedder over `backend`."""
    embedder = LocalEmbedder(lambda: backend, **options)
    try:
        embedder.wait_until_ready()
        yield embedder
    finally:
        embedder.close()


def pages(*sizes: tuple[int, int]) -> list[EncodedImage]:
    return [read_image(png(*size, seed=seed)) for seed, size in enumerate(sizes)]


def expected(text: str) -> MultiVector:
    return np.stack([embed(word) for word in text.encode().split()])


class TestMixedBatches:
    """A batch of two kinds is an error that names them, never vectors of the wrong input."""

    @pytest.fixture(scope="class", params=["colqwen2_5", "colpali"])
    def backend(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Backend[Any]:
        """The packed backend, and the padded one."""
        checkpoint = build_checkpoint(request.param, tmp_path_factory.mktemp("c") / request.param)
        return load(make_settings(model=str(checkpoint), offline=True))

    def test_texts_and_pages(self, backend: Backend[Any]) -> None:
        """A text beside a page, whichever comes first."""
        [text], page = backend.prepare_texts(["hello"]), backend.prepare_page(pages((60, 80))[0])
        for batch in ([text, page], [page, text]):
            with pytest.raises(InternalError, match=r"mixes kinds.*(Page).*TextInput"):
                backend.forward(batch)

    def test_foreign_inputs(self, backend: Backend[Any]) -> None:
        """What another backend prepared, alone or beside its own."""
        [text] = backend.prepare_texts(["hello"])
        foreign = Words([b"hello"])
        for batch in ([foreign], [text, foreign], [foreign, text]):
            with pytest.raises(InternalError, match="Words"):
                backend.forward(batch)


class TestOwnBackend:
    """The engine's contract, with a model that pagevec has never seen."""

    def test_order(self) -> None:
        """Answers are in the inputs' order, batched, and each as if alone."""
        with serve(HashBackend(), batch_tokens=64) as embedder:
            answer = embedder.embed_texts(TEXTS).result()
            images = pages((300, 200), (60, 40), (500, 400))
            ours = embedder.embed_images(images).result().vectors
        assert max(answer.batch_sizes) > 1
        assert all(map(np.array_equal, answer.vectors, map(expected, TEXTS)))
        assert [len(vectors) for vectors in ours] == [7, 1, 21]
        assert all(
            np.array_equal(v[0], embed(hash_page(i))) for v, i in zip(ours, images, strict=True)
        )

    def test_batches_keep_to_the_budget(self) -> None:
        """No batch is larger than the tokens that the setting allows."""
        sizes: list[int] = []
        with serve(Watched(lambda batch: sizes.append(sum(map(len, batch)))), batch_tokens=64) as e:
            sizes.clear()
            e.embed_texts(TEXTS).result()
        assert 3 < max(sizes) <= 64

    def test_running_out_of_memory(self) -> None:
        """After a MemoryError batches are halved, nothing is lost, and the size is remembered."""
        largest = [10**9]

        def run_out(batch: Sequence[Words]) -> None:
            if sum(map(len, batch)) > largest[0]:
                raise MemoryError

        with serve(Watched(run_out)) as embedder:
            before = embedder.health().batch_tokens
            largest[0] = 20
            answer = embedder.embed_texts(TEXTS).result()
            assert all(map(np.array_equal, answer.vectors, map(expected, TEXTS)))
            assert embedder.health().batch_tokens <= 20 < before
            with pytest.raises(OutOfMemory) as error:
                embedder.embed_texts(["fits", "word " * 21]).result()
            assert error.value.index == 1

    def test_callers_who_leave(self) -> None:
        """What a caller who left has in the queue is not computed."""
        gate, running, seen = threading.Event(), threading.Event(), []

        def hold(batch: Sequence[Words]) -> None:
            if b"first" in batch[0]:
                running.set()
                gate.wait(30)
            seen.extend(batch)

        with serve(Watched(hold)) as embedder:
            first = embedder.embed_texts(["first"])
            assert running.wait(30)
            second, third = embedder.embed_texts(["second"]), embedder.embed_texts(["third"])
            while embedder.health().queued_tokens < 2:
                time.sleep(0.01)
            assert second.cancel()
            gate.set()
            assert len(first.result().vectors) == len(third.result().vectors) == 1
            with pytest.raises(CancelledError):
                second.result()
        assert [b"third"] in seen
        assert [b"second"] not in seen

    def test_a_result_too_few(self) -> None:
        """A backend that loses an input fails the request; no vector goes to another input."""
        lose = threading.Event()

        class Losing(HashBackend):
            def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
                return super().forward(batch)[bool(lose.is_set()) :]

        with serve(Losing()) as embedder:
            lose.set()
            with pytest.raises(InternalError):
                embedder.embed_texts(["one", "two"]).result()
            lose.clear()
            assert len(embedder.embed_texts(["one", "two"]).result().vectors) == 2

    def test_a_text_too_few(self) -> None:
        """A backend that prepares fewer texts than it was given fails the request at once."""

        class Losing(HashBackend):
            def prepare_texts(self, texts: Sequence[str]) -> list[Words]:
                return super().prepare_texts(texts[:1])

        with serve(Losing()) as embedder, pytest.raises(InternalError, match="1 of 2 texts"):
            embedder.embed_texts(["one", "two"]).result(30)

    def test_tokens(self) -> None:
        """A backend that can tokenize says so, and tokens come only where they are asked for."""

        class Telling(HashBackend):
            def tokenize(self, text: str, prepared: Words) -> list[Token]:
                return [Token(one.group(), *one.span()) for one in re.finditer(r"\S+", text)]

        with serve(HashBackend()) as silent, serve(Telling()) as telling:
            assert not silent.info().tells_tokens
            assert telling.info().tells_tokens
            answer = telling.embed_texts(["two words"], tokens=True).result()
            assert answer.tokens == ((Token("two", 0, 3), Token("words", 4, 9)),)
            assert telling.embed_texts(["two words"]).result().tokens == ()
            with pytest.raises(Exception, match="does not tell the tokens"):
                silent.embed_texts(["two words"], tokens=True).result()
            with pytest.raises(InternalError):  # a token too few
                telling.embed_texts([""], tokens=True).result()

    def test_hints_and_a_device_that_fails(self) -> None:
        """The hints are followed; a fatal error stops the engine and fails what waits."""
        broken = threading.Event()

        class Abacus(Device):
            def is_fatal(self, error: BaseException) -> bool:
                return isinstance(error, OSError)

        def fail(batch: Sequence[Words]) -> None:
            if broken.is_set():
                raise OSError("a bead is lost")

        backend = Watched(fail)
        backend.hints = BatchHints(batch_tokens=77, device=Abacus(), load_seconds={"sort": 1.5})
        with serve(backend) as embedder:
            assert embedder.health().batch_tokens == 77
            assert set(embedder.health().start_seconds) == {"sort", "warm_up"}
            broken.set()
            with pytest.raises(Exception, match="the model failed"):
                embedder.embed_texts(["one"]).result()
            assert embedder.health().state == "failed"

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            (lambda vectors: vectors.astype(np.float64), r"float64 \(\d+, 32\).*float32"),
            (lambda vectors: vectors[:, :8], r"\(\d+, 8\).*\(vectors, 32\)"),
            (lambda vectors: vectors[0], r"float32 \(32,\)"),
            (lambda vectors: vectors.tolist(), "list"),
            (lambda vectors: vectors * 3, "unit length"),
        ],
    )
    def test_what_is_no_multi_vector(self, wrong: Callable[[Any], Any], named: str) -> None:
        """A backend that returns something else ends the start with a sentence."""

        class Wrong(HashBackend):
            def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
                return [wrong(vectors) for vectors in super().forward(batch)]

        embedder = LocalEmbedder(Wrong)
        with pytest.raises(ConfigurationError, match=f"Wrong.forward returned .*{named}"):
            embedder.wait_until_ready()
        embedder.close()


class Watched(HashBackend):
    """Has `look` see each batch first."""

    hints = BatchHints()

    def __init__(self, look: Callable[[Sequence[Words]], None]) -> None:
        self._look = look

    def forward(self, batch: Sequence[Words]) -> list[MultiVector]:
        self._look(batch)
        return super().forward(batch)


class TestNamedInTheSettings:
    """`PAGEVEC_BACKEND`, `pagevec serve --backend`."""

    def test_class_and_factory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The name is a class or a function in the current folder, which may take settings."""
        (tmp_path / "mine_named.py").write_text(
            "from engine.hash_backend import HashBackend\n"
            "def make(settings):\n"
            "    backend = HashBackend()\n"
            "    backend.folder = settings.model\n"
            "    return backend\n"
        )
        monkeypatch.chdir(tmp_path)
        assert isinstance(load(make_settings(backend="mine_named:HashBackend")), HashBackend)
        made: Any = load(make_settings(backend="mine_named:make", model="a-folder"))
        assert made.folder == "a-folder"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere_at_all:Thing", "no module 'nowhere_at_all'"),
            ("engine.nowhere:Thing", r"no module 'engine.nowhere'"),
            ("engine.hash_backend:Nothing", "has no class or function 'Nothing'"),
            ("engine.hash_backend:not_a_backend", "has no method info, prepare_texts"),
        ],
    )
    def test_what_is_wrong_is_named(self, name: str, message: str) -> None:
        """A module, a name or a method that is missing is a sentence."""
        with pytest.raises(ConfigurationError, match=f"backend '{name}'.*{message}"):
            load(make_settings(backend=name))

    def test_served(self, tmp_path: Path) -> None:
        """A process of `pagevec serve` answers with it over HTTP, and never loads torch."""
        (tmp_path / "mine.py").write_text((Path(__file__).parent / "hash_backend.py").read_text())
        with serving(tmp_path, environment(), "--backend", "mine:HashBackend") as service:
            with service.client() as client:
                body = {"input_type": "text", "inputs": ["two words", "one"]}
                answer = client.post("/embeddings", json=body).json()["embeddings"]
                assert client.get("/info").json()["model"] == "hash"
            maps = Path(f"/proc/{service.popen.pid}/maps")
            assert not maps.exists() or "libtorch" not in maps.read_text()
        assert np.allclose(answer[0], expected("two words"), atol=1e-6)
        assert np.allclose(answer[1], expected("one"), atol=1e-6)

    def test_not_served(self, tmp_path: Path) -> None:
        """`pagevec serve` ends with a sentence where there is no such backend."""
        ended = run_to_the_end(tmp_path, environment(), "--backend", "nowhere_at_all:Thing")
        assert ended.returncode == 1
        assert "no module 'nowhere_at_all'" in ended.stderr
        assert "Traceback" not in ended.stderr


class TestDocumented:
    """docs/backends.md."""

    def test_example(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The example is served as written, texts and pages."""
        document = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
        [code] = re.findall(r"<!-- example -->\n```python\n(.*?)```", document, re.S)
        (tmp_path / "grey.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        settings = make_settings(backend="grey:Grey")
        embedder = LocalEmbedder.of(settings, lambda: load(settings))
        embedder.wait_until_ready()
        with running(embedder, settings) as service:
            assert [len(one) for one in ask(service, "text", "two words", "")] == [2, 1]
        [page] = embedder.embed_images(pages((300, 200))).result().vectors
        assert page.shape == (1, 64)
        embedder.close()

    def test_defaults(self) -> None:
        """The table of hints has the defaults of the code."""
        document = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", document, re.M))
        hints = BatchHints()
        for name in ("padded", "batch_tokens", "threads", "quadratic_crossover"):
            assert float(rows[name].strip("`").replace("False", "0")) == getattr(hints, name)

    def test_needs_no_torch(self) -> None:
        """The engine itself, and what a backend imports, load no torch."""
        code = "import pagevec.engine.embedder, pagevec.engine.backends, sys; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "pagevec.engine.embedder" in done.stdout.split()
        assert "torch" not in done.stdout.split()


def ask(service: Service, kind: str, *inputs: str) -> list[list[list[float]]]:
    with service.client() as client:
        answer = client.post("/embeddings", json={"input_type": kind, "inputs": list(inputs)})
    embeddings: list[list[list[float]]] = answer.json()["embeddings"]
    return embeddings

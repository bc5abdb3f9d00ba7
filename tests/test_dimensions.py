"""A model of any dimension, from a backend of a user's own to hits and maps."""

import base64
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import pagevec
from conftest import KEY, Service, make_settings, png, running, serving_documents
from conftest import pagevec as command
from documents_http import Documents
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import OtherModel
from pagevec.grid import PageResizing
from pagevec.images import EncodedImage
from pagevec.search.maxsim import maxsim
from pagevec.search.similarity_maps import map_similarities
from pagevec.stores import back_up_store, hamming, open_store
from pagevec.types import ModelInfo, MultiVector, Page, PageKey, Query, Token

RESIZING = PageResizing(cell=32, min_pixels=64 * 64, max_pixels=256 * 256, first=1, max_ratio=200)
QUERY = "dark marks on a light page"
PICTURES = {f"{seed}.png": png(200 + 40 * seed, 320, seed) for seed in range(5)}


class Prepared(list[Any]):
    """What stands for each vector: a word, or the pixels of a cell."""

    tokens = property(len)


class Cells:
    """A model of any dimension: words by their hash, cells of a page by their pixels.

    It has a patch grid and tells its tokens, so that there are maps for each word.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.axes = np.random.default_rng(dim).standard_normal((64, dim)).astype(np.float32)

    def info(self) -> ModelInfo:
        return ModelInfo(f"cells-{self.dim}", dim=self.dim, resizing=RESIZING)

    def prepare_texts(self, texts: Sequence[str]) -> list[Prepared]:
        return [
            Prepared(np.random.default_rng(zlib.crc32(word.encode())).random(64) for word in words)
            for words in (text.split() or [""] for text in texts)
        ]

    def prepare_page(self, image: EncodedImage) -> Prepared:
        seen = np.asarray(RESIZING.resize(image.decode()).convert("L"), np.float32) / 255
        rows, columns = (side // 32 for side in seen.shape)
        cells = seen.reshape(rows, 8, 4, columns, 8, 4).mean(axis=(2, 5)).swapaxes(1, 2)
        return Prepared([np.ones(64), *cells.reshape(-1, 64)])

    def page_tokens(self, width: int, height: int) -> int:
        return 1 + RESIZING.grid(width, height).cells

    def tokenize(self, text: str, prepared: Prepared) -> list[Token]:
        tokens, start = [], 0
        for word in text.split() or [""]:
            start = text.index(word, start)
            tokens.append(Token(word, start, start + len(word)))
            start += len(word)
        return tokens

    def forward(self, batch: Sequence[Prepared]) -> list[MultiVector]:
        return [self._embed(np.float32(list(one))) for one in batch]

    def _embed(self, numbers: MultiVector) -> MultiVector:
        vectors = numbers @ self.axes + 1e-3
        unit: MultiVector = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


@contextmanager
def ready(dim: int, **settings: Any) -> Iterator[LocalEmbedder]:
    made = make_settings(**settings)
    with closing(LocalEmbedder.of(made, lambda: Cells(dim))) as embedder:
        embedder.wait_until_ready()
        yield embedder


@pytest.fixture(scope="module", params=[320, 100])
def wide(request: pytest.FixtureRequest) -> Iterator[LocalEmbedder]:
    with ready(request.param) as embedder:
        yield embedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures, and a text."""
    made = tmp_path / "pictures"
    made.mkdir()
    for name, content in PICTURES.items():
        (made / name).write_bytes(content)
    (made / "notes.txt").write_text("dark marks")
    return made


class Expected:
    """What float vectors say of the pictures, as the model itself makes them."""

    def __init__(self, client: pagevec.Client) -> None:
        self.query = client.embed_query_with_tokens(QUERY)
        [of_text] = client.embed_texts(["dark marks"], dtype="float32")
        pictures = client.embed_images(list(PICTURES.values()), dtype="float32")
        self.vectors = dict(zip([*PICTURES, "notes.txt"], [*pictures, of_text], strict=True))

    def scores(self) -> dict[str, float]:
        """Return the names of files and their MaxSim with the query, the highest first."""
        scores = maxsim(self.query.vectors, list(self.vectors.values())).tolist()
        named = zip(self.vectors, scores, strict=True)
        return dict(sorted(named, key=lambda one: -one[1]))

    def page(self, name: str, size: tuple[int, int]) -> Page:
        return Page(PageKey(name, 1), self.vectors[name], grid=RESIZING.grid(*size))


@pytest.mark.parametrize("scan_from", [2000, 0])
def test_over_http(
    wide: LocalEmbedder,
    store_name: str,
    folder: Path,
    tmp_path: Path,
    scan_from: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Uploads are ingested and searched: scores are MaxSim of float vectors, maps their cosines."""
    monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
    files = [(one.name, one.read_bytes()) for one in sorted(folder.iterdir())]
    with (
        serving_documents(wide, store_name, tmp_path / "uploads") as (service, _),
        Documents.of(service) as documents,
        pagevec.Client(service.url, KEY) as client,
    ):
        assert {one["state"] for one in documents.upload(*files)} == {"complete"}
        expected = Expected(client)
        answer = documents.search(QUERY, maps=True)
    found = {Path(hit["document"]["name"]).name: hit for hit in answer["hits"]}
    assert list(found) == list(expected.scores())
    for name, score in expected.scores().items():
        assert found[name]["score"] == pytest.approx(score, abs=2e-3)
    for seed, name in enumerate(PICTURES):
        maps = map_similarities(expected.query, expected.page(name, (200 + 40 * seed, 320)))
        given = found[name]["maps"]
        assert [given["rows"], given["columns"]] == list(maps.overall.values.shape)
        words = [maps.overall, *maps.words]
        for one, coded in zip(words, [given["whole"], *given["words"]], strict=True):
            levels = np.frombuffer(base64.b64decode(coded), np.uint8).reshape(one.values.shape)
            # A map without contrast has no levels to speak of.
            assert np.ptp(one.values) < 0.02 or np.abs(levels - 1.0 * one.levels()).max() < 12
    assert answer["words"] == QUERY.split()
    assert found["notes.txt"]["maps"] is None


def test_through_an_index(
    wide: LocalEmbedder, store_name: str, folder: Path, tmp_path: Path
) -> None:
    """A client's vectors in a store of one's own: hits, maps, vectors, and a second opening."""
    with running(wide, make_settings()) as service, pagevec.Client(service.url, KEY) as client:
        expected = Expected(client)
        with pagevec.Index(store_name, client) as index:
            assert index.add(folder).pages_stored == len(PICTURES) + 1
        with pagevec.Index(store_name, client) as index:
            hits = index.search(QUERY)
            assert [Path(hit.document).name for hit in hits] == list(expected.scores())
            for hit, score in zip(hits, expected.scores().values(), strict=True):
                assert hit.score == pytest.approx(score, abs=2e-3)
            best = next(hit for hit in hits if hit.document.endswith(".png"))
            name = Path(best.document).name
            rows, columns = best.maps().words[0].values.shape
            cosines = expected.query.vectors[0] @ expected.vectors[name][1:].T
            np.testing.assert_allclose(
                best.maps().words[0].values, cosines.reshape(rows, columns), atol=2e-3
            )
            best.maps().save(best.picture(), tmp_path / "maps" / "best.jpg")
            assert len(list((tmp_path / "maps" / "best").iterdir())) == len(QUERY.split())
    with open_store(store_name) as store:
        [page] = store.fetch([PageKey(f"pictures/{name}", 1)])
        np.testing.assert_allclose(page.vectors, expected.vectors[name], atol=1e-3)


@pytest.fixture(scope="module")
def serving(wide: LocalEmbedder) -> Iterator[Service]:
    with running(wide, make_settings()) as service:
        yield service


@pytest.fixture(scope="module")
def hundred() -> Iterator[Service]:
    """A service with a model of 100 dimensions."""
    with ready(100) as embedder, running(embedder, make_settings()) as service:
        yield service


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 1e-6), ("float16", 1e-3), ("int8", 5e-3), ("binary", None)]
)
@pytest.mark.parametrize("pool_factor", [1, 3])
def test_a_client_reads_every_dtype(
    wide: LocalEmbedder, serving: Service, dtype: Any, error: float | None, pool_factor: int
) -> None:
    """Vectors come back with all of their components, and no more, as exact as their dtype is."""
    pictures, texts, dim = list(PICTURES.values()), [QUERY, "two words"], wide.info().dim
    with pagevec.Client(serving.url, KEY) as client:
        exact = client.embed_images(pictures, dtype="float32", pool_factor=pool_factor)
        exact += client.embed_texts(texts, dtype="float32", pool_factor=pool_factor)
        found = client.embed_images(pictures, dtype=dtype, pool_factor=pool_factor)
        found += client.embed_texts(texts, dtype=dtype, pool_factor=pool_factor)
    for one, vectors in zip(found, exact, strict=True):
        assert one.shape == vectors.shape and one.shape[1] == dim
        if error is None:
            np.testing.assert_allclose(np.abs(one), dim**-0.5, rtol=1e-6)
            np.testing.assert_array_equal(one > 0, vectors > 0)
        else:
            assert np.abs(one - vectors).max() <= error


@pytest.mark.parametrize("encoding", ["float", "base64", "bytes"])
def test_as_vllm_has_it(wide: LocalEmbedder, serving: Service, encoding: str) -> None:
    """Numbers, base64 and bytes hold the vectors; a rerank's scores are their MaxSim."""
    dim = wide.info().dim
    with pagevec.Client(serving.url, KEY) as client, serving.client() as http:
        exact = client.embed_texts([QUERY, "marks", "a page"], dtype="float32")
        body = {"input": [QUERY, "marks"], "encoding_format": encoding}
        answer = http.post("/pooling", json=body)
        if encoding == "bytes":
            found = [np.frombuffer(answer.content, np.float32).reshape(-1, dim)]
            exact_ones = [np.concatenate(exact[:2])]
        else:
            read = {"float": np.float32, "base64": _from_base64}[encoding]
            found = [read(one["data"]).reshape(-1, dim) for one in answer.json()["data"]]
            exact_ones = exact[:2]
        ranked = http.post("/rerank", json={"query": QUERY, "documents": ["marks", "a page"]})
    for one, vectors in zip(found, exact_ones, strict=True):
        np.testing.assert_allclose(one, vectors, atol=1e-6)
    scores = {one["index"]: one["relevance_score"] for one in ranked.json()["results"]}
    np.testing.assert_allclose([scores[0], scores[1]], maxsim(exact[0], exact[1:]), rtol=1e-5)


def _from_base64(text: str) -> MultiVector:
    return np.frombuffer(base64.b64decode(text), np.float32)


def test_embed_command_and_backup(hundred: Service, folder: Path, tmp_path: Path) -> None:
    """`pagevec embed` writes arrays of that dimension; the copy of a store is searched as it is."""
    out, store = tmp_path / "pages.npz", tmp_path / "store"
    done = command("embed", folder, "--out", out, "--url", hundred.url, "--key", KEY)
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays, pagevec.Client(hundred.url, KEY) as client:
        names = arrays["names"].tolist()
        expected = Expected(client)
        for number, name in enumerate(names):
            exact = expected.vectors[Path(name).name.removesuffix("#1")]
            assert arrays[f"emb_{number}"].shape[1] == 100
            np.testing.assert_allclose(arrays[f"emb_{number}"], exact, atol=1e-6)
        with pagevec.Index(store, client) as index:
            index.add(folder)
        assert back_up_store(str(store), tmp_path / "copy").pages == len(names)
        with pagevec.Index(tmp_path / "copy", client, create=False) as index:
            assert Path(index.search(QUERY)[0].document).name == next(iter(expected.scores()))


def test_another_dimension_is_refused(
    hundred: Service, store_name: str, folder: Path, tmp_path: Path
) -> None:
    """Commands and a service refuse a store of another model, by name of both dimensions."""
    said = "the store has vectors of 100 dimensions, these have 48: use the model that"
    with pagevec.Client(hundred.url, KEY) as client, pagevec.Index(store_name, client) as index:
        index.add(folder)
        before = [(hit.document, hit.score) for hit in index.search(QUERY)]
        with ready(48) as narrow, running(narrow, make_settings()) as service:
            for arguments in (["search", QUERY], ["ingest", folder]):
                done = command(
                    *arguments, "--store", store_name, "--url", service.url, "--key", KEY
                )
                assert (done.returncode, said in done.stderr) == (2, True), done.stderr
            with (
                pytest.raises(OtherModel, match=said),
                serving_documents(narrow, store_name, tmp_path / "uploads"),
            ):
                pass
        assert [(hit.document, hit.score) for hit in index.search(QUERY)] == before


def test_answers_of_long_vectors_are_priced_by_their_length() -> None:
    """The limit on an answer's bytes counts components: what fits with 100 does not with 4,096."""
    for dim, allowed in ((100, True), (4096, False)):
        with (
            ready(dim, max_answer_bytes=100_000, batch_tokens=128) as embedder,
            running(embedder, make_settings()) as service,
            service.client() as http,
        ):
            body = {"input_type": "text", "inputs": ["word " * 40]}
            answer = http.post("/embeddings", json=body)
            assert _code(answer) == (None if allowed else "too_much_work")
            smaller = http.post("/embeddings", json={**body, "dtype": "binary"})
            assert _code(smaller) is None


def _code(answer: httpx.Response) -> str | None:
    code: str | None = answer.json().get("code")
    return code


def test_a_dimension_of_one(store_name: str, folder: Path) -> None:
    """Vectors of one component, which are 1 or -1, go all the way, too."""
    with (
        ready(1) as embedder,
        running(embedder, make_settings()) as service,
        pagevec.Client(service.url, KEY, dtype="binary") as client,
        pagevec.Index(store_name, client) as index,
    ):
        assert index.add(folder).pages_stored == len(PICTURES) + 1
        hits = index.search(QUERY)
        query = Query(QUERY, client.embed_query(QUERY))
        assert query.vectors.shape == (len(QUERY.split()), 1)
        scores = [hit.score for hit in hits]
        assert len(scores) == len(PICTURES) + 1
        assert scores == sorted(scores, reverse=True)
        assert {abs(score) <= len(query.vectors) for score in scores} == {True}

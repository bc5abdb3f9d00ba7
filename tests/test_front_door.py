"""The front door: `pagevec.load`, `pagevec.Client`, `pagevec.Index`, as a user writes them."""

import asyncio
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pagevec
from conftest import EXAMPLES, Service, make_settings
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ImageTooLarge, InvalidImage, PagevecError
from pagevec.local import LocalModel
from pagevec.types import ImageInput, ModelInfo, MultiVector

QUERY = "a ferry learns to be quiet"


@pytest.fixture(params=["in process", "over HTTP"])
def model(
    request: pytest.FixtureRequest, embedder: LocalEmbedder, service: Service
) -> Iterator[pagevec.Model]:
    """The bundled model, in this process and behind a service."""
    if request.param == "in process":
        yield LocalModel(embedder)  # not closed: the embedder serves other tests
        return
    with pagevec.Client(service.url, service.key) as client:
        yield client


def test_from_a_folder_to_an_answer(model: pagevec.Model, store_name: str, tmp_path: Path) -> None:
    """README's lines: vectors, a report of what was stored, hits with thumbnails and maps."""
    vectors = model.embed_images([EXAMPLES / "receipt.png"])
    query = model.embed_query(QUERY)
    assert vectors[0].shape[1] == query.shape[1] == model.info().dim == 128

    seen: list[tuple[int, int]] = []
    with pagevec.Index(store_name, model) as index:
        report = index.add(
            [EXAMPLES / "annual-report.pdf", str(EXAMPLES / "notes.txt")],
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert (report.pages_stored, report.failed) == (7, ())
        assert seen[-1] == (7, 7)
        assert index.add(EXAMPLES).pages_stored == 1  # only the receipt is new

        hits = index.search(QUERY, k=5)
        assert len(hits) == 5
        assert (hits[0].document, hits[0].page) == ("examples/annual-report.pdf", 2)
        assert hits[0].score > hits[4].score
        assert hits[0].thumbnail is not None and hits[0].thumbnail.startswith(b"\xff\xd8")
        assert hits[0].text is not None and "Kittiwake" in hits[0].text
        maps = hits[0].maps()
        assert [one.word for one in maps.words] == QUERY.split()
        maps.save(hits[0].picture(), tmp_path / "maps" / "first.jpg")
        drawn = {path.name for path in (tmp_path / "maps" / "first").iterdir()}
        assert drawn == {f"{word}.jpg" for word in QUERY.split()}
        with Image.open(tmp_path / "maps" / "first.jpg") as overall:
            assert overall.size[0] in (1240, 1241)

        [text] = index.search(QUERY, metadata={"type": "text"})
        assert text.document == "examples/notes.txt"
        [same] = index.search(QUERY, documents=[EXAMPLES / "notes.txt"])
        assert same.document == text.document
        index.remove("examples/notes.txt")
        names = [record.name for record in index.documents()]
        assert names == ["examples/annual-report.pdf", "examples/receipt.png"]


def test_both_models_agree(embedder: LocalEmbedder, service: Service) -> None:
    """In process and over HTTP the same inputs give the same vectors, and the same tokens."""
    here = LocalModel(embedder)
    with pagevec.Client(service.url, service.key, dtype="float32") as there:
        for one, other in zip(
            here.embed_images([EXAMPLES / "receipt.png"]),
            there.embed_images([EXAMPLES / "receipt.png"], resize=False),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, atol=1e-4)
        one, other = (m.embed_query_with_tokens("fares, 2024") for m in (here, there))
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-4)
        assert one.tokens == other.tokens
        assert here.info().model == there.info().model == "bundled"


def test_asynchronously(service: Service, store_name: str) -> None:
    """`AsyncIndex` over `AsyncClient` stores and finds what `Index` does."""

    async def use() -> None:
        async with (
            pagevec.AsyncClient(service.url, service.key) as client,
            pagevec.AsyncIndex(store_name, client) as index,
        ):
            assert (await client.info()).model == "bundled"
            report = await index.add(EXAMPLES)
            assert report.pages_stored == 8
            hits, documents = await asyncio.gather(index.search(QUERY, k=1), index.documents())
            assert (hits[0].document, hits[0].page) == ("examples/annual-report.pdf", 2)
            assert hits[0].maps().words
            assert len(documents) == 3
            await index.remove(EXAMPLES / "notes.txt")
            assert len(await index.documents()) == 2

    asyncio.run(use())


class LettersModel:
    """A model of a user's own: it counts letters, tells no tokens and no grid."""

    def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        raise AssertionError("no image is added")

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> MultiVector:
        counts = np.array([[text.lower().count(chr(97 + i % 26)) + 1e-3 for i in range(128)]])
        unit: MultiVector = (counts / np.linalg.norm(counts)).astype(np.float32)
        return unit

    def info(self) -> ModelInfo:
        return ModelInfo("letters", dim=128)

    def close(self) -> None:
        pass

    def __enter__(self) -> "LettersModel":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_a_model_of_ones_own(store_name: str, tmp_path: Path) -> None:
    """Anything with the five calls is a model for an index, also for an asynchronous one."""
    for name, text in {"bees": "buzz buzz", "owls": "hoot hoot"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    with pagevec.Index(store_name, LettersModel()) as index:
        assert index.add(sorted(tmp_path.glob("*.txt"))).pages_stored == 2
        assert index.search("hoo", k=1)[0].document.endswith("owls.txt")

    async def search() -> str:
        async with pagevec.AsyncIndex(store_name, LettersModel()) as index:
            return (await index.search("zzz", k=1))[0].document

    assert asyncio.run(search()).endswith("bees.txt")


def test_load_in_a_process_of_its_own(tmp_path: Path) -> None:
    """`pagevec.load("bundled")` embeds paths, bytes, pictures and arrays; leaving it ends it."""
    code = f"""
import numpy as np, pagevec
from PIL import Image
path = {str(EXAMPLES / "receipt.png")!r}
picture = Image.open(path)
with pagevec.load("bundled") as model:
    images = [path, open(path, "rb").read(), picture, np.asarray(picture.convert("RGB"))]
    vectors = model.embed_images(images)
    assert len(vectors) == 4
    for one in vectors[1:]:
        assert abs(one - vectors[0]).max() < 1e-4
    assert model.embed_images([]) == model.embed_texts([]) == []
    many = model.embed_texts([f"text number {{i}}" for i in range(100)])
    assert len(many) == 100
    assert abs(many[77] - model.embed_query("text number 77")).max() < 1e-4
print(model.info().model, model.info().limits.max_image_bytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["bundled", str(192 * 1024 * 1024)]


def test_limits_are_the_services(embedder: LocalEmbedder) -> None:
    """In process the same image limits hold as in the service: 75 MB of BMP are within them."""
    settings = make_settings()
    assert LocalModel(embedder).info().limits.max_image_bytes == settings.max_image_bytes
    assert LocalModel(embedder).info().limits.max_image_pixels == settings.max_image_pixels


@pytest.mark.parametrize(
    ("bad", "kind"), [(b"no image", InvalidImage), ("/nowhere.png", InvalidImage)]
)
def test_bad_inputs_are_named(
    model: pagevec.Model, bad: ImageInput, kind: type[PagevecError]
) -> None:
    """All or nothing: one bad image of 40 fails the call and is named by its place."""
    images: list[ImageInput] = [EXAMPLES / "receipt.png"] * 34 + [bad] + [b"neither"] * 2
    with pytest.raises(kind) as caught:
        model.embed_images(images)
    assert caught.value.index == 34


def test_a_single_string_is_refused(model: pagevec.Model) -> None:
    """A string is not taken for a list of its letters."""
    with pytest.raises(TypeError, match="list of inputs"):
        model.embed_texts("oops")


def test_info_is_still_a_mapping(model: pagevec.Model) -> None:
    """`info()["model"]` works for one more version, with a warning that names the new form."""
    with pytest.warns(DeprecationWarning, match=r"info\(\)\.model"):
        assert model.info()["model"] == "bundled"
    with pytest.raises(KeyError):
        model.info()["colour"]


def test_a_newer_service(service: Service) -> None:
    """Unknown fields of a newer service are ignored, at every level."""
    with service.client() as http:
        content = http.get("/info").json()
    content["colour"] = content["limits"]["colour"] = content["resizing"]["colour"] = "blue"
    with pagevec.Client(service.url, service.key) as client:
        assert ModelInfo.from_json(content) == client.info()


def test_a_users_script_passes_mypy(tmp_path: Path) -> None:
    """The lines of README are fully typed: mypy --strict finds nothing in a user's script."""
    script = tmp_path / "script.py"
    script.write_text("""
import pagevec

def use(model: pagevec.Model) -> float:
    vectors = model.embed_images(["scan.png", b"..."])
    query = model.embed_query("...")
    index = pagevec.Index("./pagevec-store", model)
    report = index.add(["reports/", "scan.png"], on_progress=lambda done, total: print(done))
    hits = index.search("night route passengers", k=5, documents=["a"], metadata={"type": "text"})
    print(hits[0].document, hits[0].page, hits[0].score, hits[0].thumbnail, hits[0].maps())
    index.remove("reports/old.pdf")
    print(index.documents(), report.failed, vectors[0] @ query.T)
    there = pagevec.Index("http://127.0.0.1:8765", "key")
    with there, pagevec.Index(pagevec.Client("http://127.0.0.1:8765", "key")) as same:
        return there.search("night route")[0].score + len(same.documents())

use(pagevec.load("bundled"))
use(pagevec.Client("http://127.0.0.1:8765", "key"))

async def use_async(client: pagevec.AsyncClient) -> str:
    async with pagevec.AsyncIndex("http://127.0.0.1:8765", "key") as there:
        await there.add("reports/")
    async with pagevec.AsyncIndex("./pagevec-store", client) as index:
        return (await index.search("night route"))[0].document
""")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout


def test_former_module_names() -> None:
    """A module is found under its name of 0.1, with a warning that names the new one."""
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import pagevec.stores.open
    from pagevec.engine.base import Embedder
import pagevec.stores, pagevec.engine.api
assert pagevec.stores.open is pagevec.stores and Embedder is pagevec.engine.api.Embedder
assert pagevec.stores.__spec__.name == "pagevec.stores"
print([str(one.message) for one in caught if "deprecated" in str(one.message)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pagevec.stores.open is deprecated: it is now pagevec.stores" in done.stdout


def test_unknown_names_of_the_package() -> None:
    """The package says what it lacks, as any module does, and lists what it has."""
    with pytest.raises(AttributeError, match="nothing_like_it"):
        pagevec.nothing_like_it  # noqa: B018
    assert {"load", "Client", "Index"} <= set(dir(pagevec))


def test_too_large_in_process(embedder: LocalEmbedder) -> None:
    """An image over a limit is refused in this process as the service refuses it."""
    with warnings.catch_warnings(), pytest.raises(ImageTooLarge):
        warnings.simplefilter("ignore")
        LocalModel(embedder).embed_images([Image.new("L", (70_000, 1))])

"""`modal run ...::embed` and `::download`: a corpus over containers, weights into the volume."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_plane import ControlPlane, serving
from modal_cli import MODULE, modal

from conftest import EXAMPLES
from model_hub import Hub, serving_hub
from pagevec.deploy.modal.corpus import Document, embed_document, list_bucket
from pagevec.deploy.modal.embed_corpus import Shards, Stored, list_folder, mount_bucket
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import InvalidRequest
from pagevec.ingest.catalogue import Catalogue
from pagevec.local import LocalModel
from pagevec.stores.fingerprint import agree_on_model
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import Page, PageKey
from pdf_files import pages_pdf

pytestmark = pytest.mark.long

RUN = (*MODULE[:1], f"{MODULE[1]}::embed")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page, a text in a subfolder, and a file that cannot be read."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "sub").mkdir()
    shutil.copy(EXAMPLES / "receipt.png", folder)
    shutil.copy(EXAMPLES / "notes.txt", folder / "sub")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    return folder


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[ControlPlane]:
    with serving(ControlPlane(tmp_path_factory.mktemp("plane"))) as started:
        started.containers.mounts["/corpus"] = corpus
        yield started


@pytest.fixture
def bundled() -> dict[str, str]:
    """Settings for the bundled model on a CPU, without a snapshot."""
    return {
        "PAGEVEC_MODEL": "bundled",
        "PAGEVEC_DEVICE": "cpu",
        "PAGEVEC_MODAL_MEMORY_SNAPSHOT": "false",
        "PAGEVEC_MODAL_CPU": "1",
    }


@pytest.fixture
def model(embedder: LocalEmbedder) -> LocalModel:
    return LocalModel(embedder)


def vectors_in(shard: Path) -> dict[str, Any]:
    with np.load(shard, allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_folder_becomes_shards(
    plane: ControlPlane,
    corpus: Path,
    bundled: dict[str, str],
    model: LocalModel,
    tmp_path: Path,
) -> None:
    """Each document leaves a shard, failures are named, a second run embeds nothing again."""
    out = tmp_path / "out"
    command = ("run", *RUN, "--source", str(corpus), "--out", str(out))
    done = modal(plane, *command, **bundled)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said + plane.containers.printed()
    assert "2 pages of 2 documents embedded" in said
    assert f"failed: {corpus.name}/broken.pdf" in said
    assert "deprecat" not in said.lower()
    shard = vectors_in(out / "receipt.png.npz")
    assert shard["names"].tolist() == ["receipt.png#1"]
    (expected,) = model.embed_images([(corpus / "receipt.png").read_bytes()])
    assert shard["emb_0"].dtype == np.float32
    # The page was made of the size that the model sees, in 8 bits a channel.
    assert (shard["emb_0"] * expected).sum(axis=1).min() >= 0.999
    assert (out / "sub" / "notes.txt.npz").is_file()
    assert not list(out.rglob("*.part"))

    assert not plane.function("Embeddings.*").checkpointing_enabled
    assert plane.checkpoints == []

    inputs = plane.count_of_inputs
    again = modal(plane, *command, **bundled)
    assert "0 pages of 0 documents embedded" in again.stdout, again.stderr
    assert plane.count_of_inputs == inputs + 1, "the one that failed, and no other"


def test_a_bucket_goes_into_a_store(
    plane: ControlPlane, corpus: Path, bundled: dict[str, str], tmp_path: Path
) -> None:
    """Containers mount, list and read the bucket; the pages end up in a store."""
    plane.secrets = plane.secrets | {"my-aws-secret": {"AWS_ACCESS_KEY_ID": "a"}}
    store = tmp_path / "store"
    source = ("--source", "s3://reports/2024", "--secret", "my-aws-secret")
    done = modal(plane, "run", *RUN, *source, "--store", str(store), **bundled)
    assert done.returncode == 1, done.stdout + done.stderr + plane.containers.printed()
    assert "failed: s3://reports/2024/broken.pdf" in done.stderr

    opened = SqliteStore(str(store))
    assert opened.count() == 2
    record = opened.ledger.record("s3://reports/2024/receipt.png")
    assert record is not None
    assert record.complete
    broken = opened.ledger.record("s3://reports/2024/broken.pdf")
    assert broken is not None
    assert not broken.complete
    opened.close()
    request = list(plane.bound.values())[-1]
    (mount,) = request.function_options.cloud_bucket_mounts
    assert (mount.bucket_name, mount.key_prefix, mount.mount_path) == (
        "reports",
        "2024/",
        "/corpus",
    )
    assert mount.read_only
    weights = [volume.mount_path for volume in request.function_options.volume_mounts]
    assert weights == ["/weights"]
    assert request.function_options.timeout_secs == 24 * 3600


def test_a_folder_goes_into_a_store(
    plane: ControlPlane, corpus: Path, bundled: dict[str, str], tmp_path: Path
) -> None:
    """Documents are named by the label of their folder; a second run finds them by these names."""
    store = tmp_path / "store"
    command = ("run", *RUN, "--source", str(corpus), "--store", str(store), "--label", "papers")
    done = modal(plane, *command, **bundled)
    assert "failed: papers/broken.pdf" in done.stderr, done.stdout + plane.containers.printed()
    opened = SqliteStore(str(store))
    assert opened.has("papers/receipt.png") == {1}
    assert opened.has("papers/sub/notes.txt") == {1}
    opened.close()
    again = modal(plane, *command, **bundled)
    assert "0 pages of 0 documents embedded" in again.stdout, again.stderr


def test_a_store_of_another_model(
    plane: ControlPlane, corpus: Path, bundled: dict[str, str], model: LocalModel, tmp_path: Path
) -> None:
    """One container is asked for its fingerprint; no document is sent, the error is a sentence."""
    store = SqliteStore(str(tmp_path / "store"))
    [other] = model.embed_texts(["not what the fingerprint is made of"])
    agree_on_model(store, other)
    store.add([Page(PageKey("other.pdf", 1), other)])
    inputs = plane.count_of_inputs
    source = ("--source", str(corpus), "--store", str(tmp_path / "store"))
    done = modal(plane, "run", *RUN, *source, **bundled)
    assert done.returncode == 1
    assert "pagevec: the pages of this store were embedded by another model" in done.stderr
    assert "Traceback" not in done.stderr
    assert plane.count_of_inputs == inputs + 1
    assert store.count() == 1
    store.close()


class TestResults:
    @pytest.fixture(params=["shards", "store"])
    def results(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        if request.param == "shards":
            return Shards(tmp_path / "out")
        return Stored(SqliteStore(str(tmp_path / "store")))

    def test_stored_documents_are_not_sent_again(
        self, results: Any, corpus: Path, model: LocalModel
    ) -> None:
        """A document is sent until its result is there, and again after its content has changed."""
        notes = self.find(corpus, results)
        assert not results.has(notes)
        results.put(embed_document(model, notes, corpus))
        assert results.has(notes)
        (corpus / "sub" / "notes.txt").write_text(f"other words for {type(results).__name__}")
        assert not results.has(self.find(corpus, results))
        results.put(embed_document(model, self.find(corpus, results), corpus))
        assert results.has(self.find(corpus, results))

    def test_failed_documents_are_sent_again(
        self, results: Any, corpus: Path, model: LocalModel
    ) -> None:
        """An unreadable document is answered with its error and counts as missing."""
        broken = self.find(corpus, results, "broken.pdf")
        answer = embed_document(model, broken, corpus)
        assert answer.error is not None
        results.put(answer)
        assert not results.has(broken)

    def test_a_page_that_fails_costs_that_page(
        self, results: Any, model: LocalModel, tmp_path: Path
    ) -> None:
        """The other pages of its document are kept, and the document is sent again."""
        folder = tmp_path / "scans"
        folder.mkdir()
        (folder / "scan.pdf").write_bytes(pages_pdf(["ONE", "TWO", "THREE"], bad={2: b"null"}))
        scan = self.find(folder, results, "scan.pdf")
        answer = embed_document(model, scan, folder)
        assert [page.key.number for page in answer.pages] == [1, 3]
        assert answer.error is not None
        assert "2 of 3 pages are stored; page 2" in answer.error
        results.put(answer)
        assert self.pages(results) == {1, 3}
        if isinstance(results, Stored):
            [stored] = Catalogue(results._store).list()
            assert (stored.is_ours, stored.stored, stored.pages) == (True, 2, 3)
        assert not results.has(scan)

    def pages(self, results: Shards | Stored) -> set[int]:
        if isinstance(results, Stored):
            return results._store.has("scans/scan.pdf")
        names = vectors_in(results._folder / "scan.pdf.npz")["names"]
        return {int(name.removeprefix("scan.pdf#")) for name in names}

    def find(self, corpus: Path, results: Any, name: str = "sub/notes.txt") -> Document:
        (found,) = (d for d in list_folder(corpus, results) if d.relative == name)
        return found


def test_a_changed_file_of_a_bucket_is_another_version(corpus: Path) -> None:
    """Files of a bucket are compared by size and time, since listing does not read them."""
    before = {d.name: d.version for d in list_bucket(corpus, "s3://reports/")}
    os.utime(corpus / "receipt.png", (1, 1))
    after = {d.name: d.version for d in list_bucket(corpus, "s3://reports/")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"s3://reports/receipt.png"}


def test_wrong_sources(tmp_path: Path) -> None:
    """A missing folder and an address without a bucket are refused, with a hint."""
    with pytest.raises(InvalidRequest, match=r"--source .*nowhere: not a folder"):
        list_folder(tmp_path / "nowhere", Shards(tmp_path))
    with pytest.raises(InvalidRequest, match="--source s3:///prefix: expected s3://bucket"):
        mount_bucket("s3:///prefix", "", "")


def test_download_fills_the_volume(plane: ControlPlane) -> None:
    """An adapter and its base are downloaded into the volume; a second run fetches nothing."""
    repositories = {
        "team/adapter": {
            "adapter_config.json": b'{"base_model_name_or_path": "team/base"}',
            "adapter_model.safetensors": b"weights",
            "training.log": b"not read",
            "checkpoint-10/adapter_model.safetensors": b"not read either",
        },
        "team/base": {"config.json": b"{}", "model.safetensors": b"more weights"},
    }
    volume = plane.containers.volumes.committed("pagevec-weights")
    with serving_hub(Hub(repositories)) as hub:
        plane.secrets = {
            "my-huggingface-secret": {"HUGGINGFACE_TOKEN": "hf", "HF_ENDPOINT": hub.url}
        }
        plane.secrets |= {"colpali-service-api-key": {"SERVICE_API_KEY": "key"}}
        command = ("run", MODULE[0], f"{MODULE[1]}::download")
        done = modal(plane, *command, PAGEVEC_MODEL="team/adapter")
        printed = plane.containers.printed()
        assert done.returncode == 0, done.stdout + done.stderr + printed
        again = modal(plane, *command, PAGEVEC_MODEL="team/adapter")
        assert again.returncode == 0, again.stdout + again.stderr
    for repository in ("team/adapter", "team/base"):
        assert f"{repository}: 2 files, 0.0 MB, of which 0.0 MB to download" in printed
        assert f"{repository}: complete" in printed
    read = ["adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors"]
    assert sorted(path.name for path in volume.rglob("snapshots/*/*")) == read
    assert sorted(name for name, _ in hub.downloads) == read
    assert plane.commits

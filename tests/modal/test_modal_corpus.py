"""`modal run ...::embed` and `::download`: a corpus over containers, weights into the volume."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_plane import ControlPlane, serving
from hub import hub_with
from modal_cli import MODULE, modal

from conftest import EXAMPLES
from pagevec.deploy.modal.corpus import (
    Document,
    documents_of_folder,
    documents_of_mount,
    embed_document,
)
from pagevec.deploy.modal.embed_corpus import bucket_mount
from pagevec.deploy.modal.results import Shards, Stored
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import InvalidRequest
from pagevec.images import read_image
from pagevec.stores.sqlite.store import EmbeddedStore

RUN = (*MODULE[:1], f"{MODULE[1]}::embed")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page, a text in a folder of its own, and a file that cannot be read."""
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
    """The bundled model on a CPU, and no snapshot: both hooks run one after the other."""
    return {
        "PAGEVEC_MODEL": "bundled",
        "PAGEVEC_DEVICE": "cpu",
        "PAGEVEC_MODAL_MEMORY_SNAPSHOT": "false",
        "PAGEVEC_MODAL_CPU": "1",
    }


def vectors_in(shard: Path) -> dict[str, Any]:
    with np.load(shard, allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_folder_becomes_shards(
    plane: ControlPlane,
    corpus: Path,
    bundled: dict[str, str],
    embedder: LocalEmbedder,
    tmp_path: Path,
) -> None:
    """Each document leaves a shard, what fails is named, a second run embeds nothing again."""
    out = tmp_path / "out"
    command = ("run", *RUN, "--source", str(corpus), "--out", str(out))
    done = modal(plane, *command, **bundled)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said + plane.containers.printed()
    assert "2 pages of 2 documents embedded" in said
    assert f"failed: {corpus}/broken.pdf" in said
    assert "deprecat" not in said.lower()
    shard = vectors_in(out / "receipt.png.npz")
    assert shard["names"].tolist() == ["receipt.png#1"]
    page = read_image((corpus / "receipt.png").read_bytes())
    (expected,) = embedder.embed([page]).result().vectors
    assert shard["emb_0"].dtype == np.float32
    assert np.abs(shard["emb_0"] - expected).max() < 1e-3
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
    """Containers mount the bucket, list it and read it themselves; pages end in a store."""
    plane.secrets = plane.secrets | {"my-aws-secret": {"AWS_ACCESS_KEY_ID": "a"}}
    store = tmp_path / "store"
    source = ("--source", "s3://reports/2024", "--secret", "my-aws-secret")
    done = modal(plane, "run", *RUN, *source, "--store", str(store), **bundled)
    assert done.returncode == 1, done.stdout + done.stderr + plane.containers.printed()
    assert "failed: s3://reports/2024/broken.pdf" in done.stderr

    opened = EmbeddedStore(str(store))
    assert opened.count() == 2
    record = opened.record("s3://reports/2024/receipt.png")
    assert record is not None
    assert record.complete
    broken = opened.record("s3://reports/2024/broken.pdf")
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


class TestResults:
    @pytest.fixture(params=["shards", "store"])
    def results(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        if request.param == "shards":
            return Shards(tmp_path / "out")
        return Stored(EmbeddedStore(str(tmp_path / "store")))

    def test_what_is_there_is_not_asked_for(
        self, results: Any, corpus: Path, embedder: LocalEmbedder
    ) -> None:
        """A document is missing until it was put, and again when its content has changed."""
        notes = self.find(corpus)
        assert not results.has(notes)
        results.put(embed_document(embedder, notes, corpus))
        assert results.has(notes)
        (corpus / "sub" / "notes.txt").write_text(f"other words for {type(results).__name__}")
        assert not results.has(self.find(corpus))
        results.put(embed_document(embedder, self.find(corpus), corpus))
        assert results.has(self.find(corpus))

    def test_what_failed_is_asked_for_again(
        self, results: Any, corpus: Path, embedder: LocalEmbedder
    ) -> None:
        """A document that cannot be read is an answer with its reason, and no result."""
        broken = self.find(corpus, "broken.pdf")
        answer = embed_document(embedder, broken, corpus)
        assert answer.error is not None
        results.put(answer)
        assert not results.has(broken)

    def find(self, corpus: Path, name: str = "sub/notes.txt") -> Document:
        (found,) = (d for d in documents_of_folder(corpus) if d.relative == name)
        return found


def test_a_changed_file_of_a_bucket_is_another_version(corpus: Path) -> None:
    """Listing does not read: size and time tell."""
    before = {d.name: d.version for d in documents_of_mount(corpus, "s3://reports/")}
    os.utime(corpus / "receipt.png", (1, 1))
    after = {d.name: d.version for d in documents_of_mount(corpus, "s3://reports/")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"s3://reports/receipt.png"}


def test_sources_that_are_none(tmp_path: Path) -> None:
    """A folder that is not there, an address without a bucket: a sentence."""
    with pytest.raises(InvalidRequest, match="is no folder"):
        list(documents_of_folder(tmp_path / "nowhere"))
    with pytest.raises(InvalidRequest, match="names no bucket"):
        bucket_mount("s3:///prefix", "", "")


def test_download_fills_the_volume(plane: ControlPlane, tmp_path: Path) -> None:
    """An adapter and its base come from a hub into the volume, told file by file, and are kept."""
    repositories = {
        "team/adapter": {
            "adapter_config.json": json.dumps({"base_model_name_or_path": "team/base"}),
            "adapter_model.safetensors": "weights",
            "training.log": "not read",
        },
        "team/base": {"config.json": "{}", "model.safetensors": "more weights"},
    }
    plane.containers.mounts["/weights"] = volume = tmp_path / "volume"
    with hub_with(repositories) as address:
        plane.secrets = {
            "my-huggingface-secret": {"HUGGINGFACE_TOKEN": "hf", "HF_ENDPOINT": address}
        }
        plane.secrets |= {"colpali-service-api-key": {"SERVICE_API_KEY": "key"}}
        command = ("run", MODULE[0], f"{MODULE[1]}::download")
        done = modal(plane, *command, PAGEVEC_MODEL="team/adapter")
    printed = plane.containers.printed()
    assert done.returncode == 0, done.stdout + done.stderr + printed
    assert "team/adapter: 2 of 2 files" in printed
    assert "team/base: 2 of 2 files" in printed
    kept = {path.name for path in volume.rglob("snapshots/*/*")}
    assert kept == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "model.safetensors",
    }
    assert plane.commits

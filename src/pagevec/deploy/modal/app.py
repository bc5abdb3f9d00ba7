"""The service on Modal: `modal deploy -m pagevec.deploy.modal.app` (docs/modal.md).

Modal reads this module on the machine that deploys and in every container; what is heavy is
imported inside the functions, where it is there.
"""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import modal

from pagevec.deploy.modal.environment import CORPUS, WEIGHTS, read_deployment
from pagevec.deploy.modal.image import service_image

if TYPE_CHECKING:
    from pagevec.deploy.modal.corpus import Document, EmbeddedDocument

DOCUMENT_SECONDS = 24 * 3600
"""For a document of a corpus, however many pages it has: as long as Modal lets a function run."""

DEPLOYED, ENVIRONMENT = read_deployment()

weights = modal.Volume.from_name(DEPLOYED.volume, create_if_missing=True)
Mounts = dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount]
read_only: Mounts = {WEIGHTS: weights.with_mount_options(read_only=True)}
huggingface = modal.Secret.from_name(
    DEPLOYED.huggingface_secret, required_keys=["HUGGINGFACE_TOKEN"]
)
api_keys = modal.Secret.from_name(DEPLOYED.api_key_secret, required_keys=["SERVICE_API_KEY"])

app = modal.App(DEPLOYED.app, image=service_image(ENVIRONMENT), include_source=False)


@app.cls(
    gpu=DEPLOYED.gpu,
    cpu=DEPLOYED.cpu,
    memory=DEPLOYED.memory,
    region=DEPLOYED.region,
    min_containers=DEPLOYED.min_containers,
    max_containers=DEPLOYED.max_containers,
    scaledown_window=DEPLOYED.scaledown_window,
    timeout=DEPLOYED.timeout,
    volumes=read_only,
    secrets=[huggingface, api_keys],
    enable_memory_snapshot=DEPLOYED.memory_snapshot,
    experimental_options={"enable_gpu_snapshot": True} if DEPLOYED.gpu_snapshot else None,
)
@modal.concurrent(max_inputs=DEPLOYED.max_inputs, target_inputs=DEPLOYED.target_inputs)
class Embeddings:
    """A container of the service."""

    @modal.enter(snap=DEPLOYED.memory_snapshot)
    def prepare(self) -> None:
        """Import and read the weights: what a snapshot keeps."""
        from pagevec.deploy.modal.container import Container

        self._container = Container()
        self._container.prepare(DEPLOYED.volume, DEPLOYED.gpu_snapshot)

    @modal.enter(snap=False)
    def start(self) -> None:
        """Move the weights to the GPU, warm up, read the keys: what each container does."""
        self._container.start()

    @modal.exit()
    def stop(self) -> None:
        """Finish what was taken."""
        self._container.stop()

    @modal.asgi_app(label=DEPLOYED.label, requires_proxy_auth=DEPLOYED.proxy_auth)
    def web(self) -> Any:
        """Return the application that every other deployment serves, too."""
        return self._container.app

    @modal.method()
    def documents(self, address: str) -> "list[Document]":
        """Return the documents of the bucket that is mounted."""
        return self._container.documents(address)

    @modal.method()
    def embed_document(self, document: "Document") -> "EmbeddedDocument":
        """Render and embed one document of a corpus."""
        return self._container.embed_document(document)


@app.function(volumes={WEIGHTS: weights}, secrets=[huggingface], timeout=4 * 3600, cpu=2.0)
def download() -> None:
    """Fill the volume with the weights; what is there already is not fetched again."""
    from pagevec.deploy.modal.weights import fetch
    from pagevec.settings import Settings

    fetch(Settings.from_environment(), lambda line: print(line, flush=True))
    weights.commit()


@app.local_entrypoint()
def embed(
    source: str, out: str = "embeddings", store: str = "", secret: str = "", endpoint: str = ""
) -> None:
    """Embed a corpus: SOURCE is a folder here, or s3://bucket/prefix, which containers mount.

    Pages go to .npz files in the folder OUT, or into STORE (a folder or postgresql://). What is
    there already is not embedded again. A private bucket needs the name of a Modal SECRET with
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; one outside AWS its ENDPOINT.
    """
    from pagevec.deploy.modal.embed_corpus import (
        bucket_mount,
        embed_bucket,
        embed_folder,
        results_in,
    )

    results = results_in(Path(out), store)
    is_bucket = source.startswith("s3://")
    corpus = {CORPUS: bucket_mount(source, secret, endpoint)} if is_bucket else {}
    containers = Embeddings.with_options(  # type: ignore[attr-defined] # app.cls made it a modal.Cls
        timeout=DOCUMENT_SECONDS, volumes=read_only | corpus, secrets=[huggingface, api_keys]
    )()
    if is_bucket:
        embed_bucket(containers, source, results)
    else:
        embed_folder(containers, Path(source), results)

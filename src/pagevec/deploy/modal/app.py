"""The service on Modal: `modal deploy -m pagevec.deploy.modal.app` (docs/modal.md).

Modal imports this module on the machine that deploys and in every container. Packages that only
containers have are imported inside the functions that run there.
"""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import modal

from pagevec.deploy.modal.environment import CORPUS, WEIGHTS, exit_on_error, read_deployment
from pagevec.deploy.modal.image import service_image
from pagevec.deploy.modal.plan import announce

if TYPE_CHECKING:
    from pagevec.deploy.modal.corpus import Document, EmbeddedDocument
    from pagevec.types import MultiVector

DOCUMENT_SECONDS = 24 * 3600
"""Time limit for one document of a corpus: the longest that Modal lets a function run."""

DOWNLOAD_SECONDS = 4 * 3600
"""Time limit for fetching the weights."""

with exit_on_error():
    DEPLOYED, ENVIRONMENT = read_deployment()

weights = modal.Volume.from_name(DEPLOYED.volume, create_if_missing=True)
Mounts = dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount]
weights_to_read = weights.with_mount_options(read_only=True)
read_only: Mounts = {WEIGHTS: weights_to_read}
huggingface = modal.Secret.from_name(
    DEPLOYED.huggingface_secret, required_keys=["HUGGINGFACE_TOKEN"]
)
api_keys = modal.Secret.from_name(DEPLOYED.api_key_secret, required_keys=["SERVICE_API_KEY"])

app = modal.App(DEPLOYED.app, image=service_image(ENVIRONMENT), include_source=False)
announce(DEPLOYED, ENVIRONMENT, weights)


@app.function(
    volumes={WEIGHTS: weights},
    secrets=[huggingface],
    timeout=DOWNLOAD_SECONDS,
    cpu=2.0,
    # One container, which takes one call after the other: this is what keeps containers that start
    # at the same time from fetching at the same time.
    max_containers=1,
    # So that the next try finds a corrected secret.
    scaledown_window=2,
)
def download(only_if_missing: bool = False) -> None:
    """Fetch the weights into the volume, except what is already there.

    Args:
        only_if_missing: do not even ask the hub if the volume holds the weights.
    """
    from pagevec.deploy.modal.weights import fetch, is_whole
    from pagevec.settings import Settings

    weights.reload()
    settings = Settings.from_environment()
    if not (only_if_missing and is_whole(settings)):
        fetch(settings, weights.commit, lambda line: print(line, flush=True))


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
    secrets=[api_keys],
    enable_memory_snapshot=DEPLOYED.memory_snapshot,
    experimental_options={"enable_gpu_snapshot": True} if DEPLOYED.gpu_snapshot else None,
)
@modal.concurrent(max_inputs=DEPLOYED.max_inputs, target_inputs=DEPLOYED.target_inputs)
class Embeddings:
    """The class that Modal runs: one object in each container."""

    @modal.enter(snap=DEPLOYED.memory_snapshot)
    def prepare(self) -> None:
        """Import everything and read the weights, if they are there: a snapshot is taken then."""
        from pagevec.deploy.modal.container import Container

        self._container = Container(DEPLOYED.volume)
        self._container.prepare(DEPLOYED.gpu_snapshot)

    @modal.enter(snap=False)
    def start(self) -> None:
        """Move the weights to the GPU, warm up and read the keys, in each container."""
        self._container.start(
            fetch=lambda: download.spawn(only_if_missing=True).get(),
            reload=weights_to_read.reload,
        )

    @modal.exit()
    def stop(self) -> None:
        """Finish the requests in flight."""
        self._container.stop()

    @modal.asgi_app(label=DEPLOYED.label, requires_proxy_auth=DEPLOYED.proxy_auth)
    def web(self) -> Any:
        """Return the ASGI application, the same as in every other deployment."""
        return self._container.app

    @modal.method()
    def fingerprint(self) -> "MultiVector":
        """Return the fingerprint of the model: float32 (vectors, dim)."""
        return self._container.fingerprint()

    @modal.method()
    def list_bucket(self, address: str) -> "list[Document]":
        """Return the documents of the mounted bucket, named below `address`."""
        return self._container.list_bucket(address)

    @modal.method()
    def embed_document(self, document: "Document") -> "EmbeddedDocument":
        """Render and embed one document of a corpus."""
        return self._container.embed_document(document)


@app.local_entrypoint()
def embed(
    source: str,
    out: str = "embeddings",
    store: str = "",
    label: str = "",
    secret: str = "",
    endpoint: str = "",
) -> None:
    """Embed the documents of a folder here, or of a bucket that containers mount.

    Documents that are already in the results, unchanged, are not embedded again.

    Args:
        source: a folder, or `s3://bucket/prefix`.
        out: folder for the results, one .npz file for each document.
        store: a folder or `postgresql://...`; takes the pages instead of `out`.
        label: begins the names of a folder's documents in the store; default: the folder's name.
        secret: Modal secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for private buckets.
        endpoint: address of the bucket's service, if it is not AWS.
    """
    from pagevec.deploy.modal import embed_corpus

    with exit_on_error(), embed_corpus.open_results(Path(out), store) as results:
        is_bucket = source.startswith("s3://")
        corpus = {CORPUS: embed_corpus.mount_bucket(source, secret, endpoint)} if is_bucket else {}
        containers = Embeddings.with_options(  # type: ignore[attr-defined] # a modal.Cls by now
            timeout=DOCUMENT_SECONDS, volumes=read_only | corpus, secrets=[api_keys]
        )()
        if is_bucket:
            embed_corpus.embed_bucket(containers, source, results)
        else:
            embed_corpus.embed_folder(containers, Path(source), results, label or None)

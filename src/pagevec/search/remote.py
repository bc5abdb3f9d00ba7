"""An index over the store of a service, which reads, embeds and searches the documents itself."""

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pagevec.client import Client
from pagevec.client.core import Send
from pagevec.client.requests import json_reader
from pagevec.errors import InvalidRequest
from pagevec.ingest.catalogue import Removal, StoredDocument
from pagevec.ingest.sources import find_documents
from pagevec.ingest.worker import Outcome
from pagevec.search.fusion import DEFAULT_MIX, Mix
from pagevec.search.remote_documents import RemoteCatalogue, ask_for_documents, path_of
from pagevec.search.remote_uploads import name_for_service, upload
from pagevec.search.results import Hit, Paths, Picture, Report, as_places
from pagevec.search.similarity_maps import PageMaps, SimilarityMap
from pagevec.types import Progress

_THUMBNAIL_WIDTH = 320  # pixels


class RemoteIndex:
    """What `Index` is with a service.

    Args:
        service: its address, or a client of it, which stays open when the index is closed.
        key: of a service that is named by its address.
    """

    def __init__(self, service: str | Client, key: str | None = None) -> None:
        self._owns_client = isinstance(service, str)
        self._client: Client
        if isinstance(service, str):
            self._client = Client(service, key, resize=False)  # which would load Pillow
        else:
            self._client = service
        self._catalogue = RemoteCatalogue(self._client)

    def add(
        self,
        paths: Paths,
        *,
        label: str | None = None,
        follow_links: bool = False,
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> Report:
        """Send documents and wait until they are ingested, as `Index.add` says."""
        found = find_documents(as_places(paths), follow_links=follow_links)
        documents = name_for_service(found, label)
        outcomes = upload(self._client, documents, on_progress, on_outcome)
        return Report(tuple(outcomes), (*found.describe(), *found.describe_links()))

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        documents: Sequence[str | os.PathLike[str]] = (),
        metadata: Mapping[str, Any] | None = None,
        mix: Mix = DEFAULT_MIX,
    ) -> list[Hit]:
        """Return the pages that answer `query`, as `Index.search` says."""
        wanted: dict[str, Any] = {"query": query, "k": k, "maps": True}
        # Only what differs: services of before know none of this.
        default = asdict(DEFAULT_MIX)
        wanted |= {name: value for name, value in asdict(mix).items() if value != default[name]}
        if documents:
            wanted["documents"] = [os.fspath(one) for one in documents]
        if metadata:
            wanted["metadata"] = dict(metadata)
        headers = {"Content-Type": "application/json"}
        request = Send("POST", "/search", json.dumps(wanted).encode(), headers)
        return ask_for_documents(self._client, request, partial(_read_hits, self._client))

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had."""
        return self._catalogue.remove(document)

    def prune(self, paths: Paths) -> Removal:
        """Refuse: a service does not know which files its documents came from.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(
            "the documents of a service cannot be pruned: it keeps the files itself, and does not "
            "know where they came from; remove documents by their names"
        )

    def documents(self) -> list[StoredDocument]:
        """Return all documents that the service has, by name."""
        return self._catalogue.list()

    def close(self) -> None:
        """Close the connections, unless a client was handed over."""
        if self._owns_client:
            self._client.close()


@dataclass(frozen=True, eq=False)
class _RemotePage:
    """The page of a hit; text and pictures are asked for when they are wanted.

    Attributes:
        client: asks the service.
        path: of the page in the service.
        has_image: whether there are pictures of it.
        found: its maps, where it has some.
        no_maps: why it has none.
    """

    client: Client
    path: str
    has_image: bool
    found: PageMaps | None
    no_maps: str | None

    @cached_property
    def text(self) -> str | None:
        text: str | None = self.client.ask(
            Send("GET", self.path), json_reader(lambda page: page["text"])
        )
        return text

    @cached_property
    def thumbnail(self) -> bytes | None:
        picture = self.jpeg(_THUMBNAIL_WIDTH)
        return None if picture is None else picture.content

    def maps(self) -> PageMaps:
        if self.found is None:
            raise InvalidRequest(self.no_maps or "the service has no maps of this page")
        return self.found

    def image_file(self) -> bytes | None:
        picture = self._fetch_picture()
        return None if picture is None else picture.content

    def jpeg(self, width: int) -> Picture | None:
        return self._fetch_picture(f"?width={width}")

    def _fetch_picture(self, options: str = "") -> Picture | None:
        if not self.has_image:
            return None
        request = Send("GET", f"{self.path}/image{options}")
        return self.client.ask(
            request,
            lambda answer: Picture(answer.content, answer.headers.get("Pagevec-Image-Reason")),
        )


def _read_hits(client: Client, answer: Any) -> list[Hit]:
    return [_read_hit(client, answer["words"], one) for one in answer["hits"]]


def _read_hit(client: Client, words: Sequence[str], hit: Mapping[str, Any]) -> Hit:
    name, number = str(hit["document"]["name"]), int(hit["page"])
    maps = None if hit["maps"] is None else _read_maps(words, hit["maps"])
    path = f"{path_of(hit['document']['id'])}/pages/{number}"
    found = _RemotePage(client, path, hit["image"] is not None, maps, hit["no_maps"])
    score = float(hit["score"])
    return Hit(
        name,
        number,
        score,
        # A service of before finds pages by their vectors alone, and orders them by score.
        float(hit.get("relevance", score)),
        tuple(hit.get("found_by", ("vectors",))),
        tuple(hit.get("found_words", ())),
        Path(name),
        hit["error"],
        dict(hit["metadata"]),
        found,
    )


def _read_maps(words: Sequence[str], maps: Mapping[str, Any]) -> PageMaps:
    def read(word: str | None, cells: str) -> SimilarityMap:
        values = np.frombuffer(base64.b64decode(cells), np.uint8).astype(np.float32)
        return SimilarityMap(word, values.reshape(maps["rows"], maps["columns"]) / np.float32(255))

    of_words = (read(word, one) for word, one in zip(words, maps["words"], strict=True))
    return PageMaps(read(None, maps["whole"]), tuple(of_words))

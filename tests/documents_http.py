"""A caller of the documents of a service, as any HTTP client would be."""

import time
from types import TracebackType
from typing import Any, Self

import httpx

from conftest import Service

_FINAL = ("complete", "incomplete", "failed")


class Documents:
    """Uploads, lists, searches. What is no 2xx raises `httpx.HTTPStatusError`, with the answer."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    @classmethod
    def of(cls, service: Service) -> Self:
        return cls(service.client())

    def upload(self, *files: tuple[str, bytes], wait: bool = True) -> list[dict[str, Any]]:
        parts = [("files", (name, content)) for name, content in files]
        answer = self.http.post(f"/documents{'?wait=true' if wait else ''}", files=parts)
        return list(_content(answer)["documents"])

    def list(self, **query: str | int) -> dict[str, Any]:
        return _content(self.http.get("/documents", params=query))

    def get(self, identity: str) -> dict[str, Any]:
        return _content(self.http.get(f"/documents/{identity}"))

    def wait(self, identity: str, seconds: float = 120) -> dict[str, Any]:
        """Return a document once its state is final."""
        end = time.monotonic() + seconds
        while (found := self.get(identity))["state"] not in _FINAL:
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def remove(self, identity: str) -> dict[str, Any]:
        return _content(self.http.delete(f"/documents/{identity}"))

    def image(self, identity: str, page: int, **query: int) -> httpx.Response:
        return self.http.get(f"/documents/{identity}/pages/{page}/image", params=query)

    def search(self, query: str, **fields: Any) -> dict[str, Any]:
        return _content(self.http.post("/search", json={"query": query, **fields}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()


def _content(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    content: dict[str, Any] = answer.json()
    return content

"""The synchronous client: threads carry the steps out."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from pagevec.client._protocol import Call
from pagevec.client.base import BaseClient, checked
from pagevec.client.images import ImageInput
from pagevec.client.job import Progress
from pagevec.client.steps import Exchange, Send, Sleep, Work
from pagevec.types import MultiVector
from pagevec.wire.quantize import Dtype

T = TypeVar("T")


class Client(BaseClient):
    """Asks an embedding service; may be used from many threads.

    >>> with Client("http://127.0.0.1:8765", key) as client:  # doctest: +SKIP
    ...     vectors = client.embed_texts(["which page says so?"])
    """

    def embed_texts(
        self,
        texts: Sequence[str],
        *,
        dtype: Dtype = "float16",
        pool_factor: int = 1,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Return one multi-vector, float32 (vectors, dim), for each text, in order; all or none.

        Args:
            texts: queries or passages.
            dtype: how vectors travel (see docs/http-api.md).
            pool_factor: merges similar vectors until about 1 / `pool_factor` are left.
            progress: called with (answered, all) after each request.

        Raises:
            PagevecError: one of `pagevec.client.faults` or `pagevec.errors`, with the `index` of
            the input that is to blame, where one is.
        """
        return self._embed(Call("text", dtype, pool_factor), texts, False, progress)

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        dtype: Dtype = "float16",
        pool_factor: int = 1,
        resize: bool = True,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Return one multi-vector, float32 (vectors, dim), for each image, in order; all or none.

        Args:
            images: paths, image files' bytes, Pillow images, or uint8 pixels (h, w[, 3 or 4]).
            resize: to the model's own size before sending, which takes fewer bytes (needs Pillow).
            dtype: as in `embed_texts`, which also says what is raised.
            pool_factor: as in `embed_texts`.
            progress: as in `embed_texts`.
        """
        return self._embed(Call("image", dtype, pool_factor), images, resize, progress)

    def embed_query(self, text: str, *, dtype: Dtype = "float16") -> MultiVector:
        """Return the multi-vector, float32 (vectors, dim), of a query. Raises as `embed_texts`."""
        return self.embed_texts([text], dtype=dtype)[0]

    def info(self) -> dict[str, Any]:
        """Return what the service says of its model and its limits. Raises as `embed_texts`."""
        return self._drive(self._core.info())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, **options: Any) -> None:
        self._http = httpx.Client(**options)

    def _embed(
        self, call: Call, inputs: Sequence[Any], resize: bool, progress: Progress | None
    ) -> list[MultiVector]:
        job = self._drive(self._core.job(call, checked(inputs), resize, progress))
        stop, pool = threading.Event(), ThreadPoolExecutor(self._in_flight)
        try:
            runs = {pool.submit(self._drive, self._core.embed(job, r), stop): r for r in job.runs}
            for done in as_completed(runs):
                job.add(runs[done], done.result())
        finally:
            # After a fault: what still runs sends nothing more, and nobody waits for it.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return job.result()

    def _drive(self, exchange: Exchange[T], stop: threading.Event | None = None) -> T:
        stop = stop or threading.Event()
        try:
            step = next(exchange)
            while not stop.is_set():
                try:
                    outcome = self._outcome(step, stop)
                except httpx.RequestError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        raise CancelledError

    def _outcome(self, step: Send | Sleep | Work, stop: threading.Event) -> Any:
        if isinstance(step, Send):
            return self._http.request(
                step.method, step.url, content=step.content, headers=step.headers
            )
        return stop.wait(step.seconds) if isinstance(step, Sleep) else step.do()

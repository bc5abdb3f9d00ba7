"""The synchronous client, whose threads perform the core's steps."""

import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from pagevec.client.base import BaseClient
from pagevec.client.connections import OwnedConnections
from pagevec.client.core import Exchange, Read, Reconnect, Send, Sleep, Step
from pagevec.client.requests import Embedding, RequestOptions
from pagevec.types import ImageInput, ModelInfo, MultiVector, Progress, Query
from pagevec.wire.quantize import Dtype

T = TypeVar("T")


class Client(BaseClient[httpx.Client]):
    """A model behind HTTP (`pagevec.types.Model`), for many threads, and for processes that fork.

    >>> with Client("http://127.0.0.1:8765", key) as client:  # doctest: +SKIP
    ...     vectors = client.embed_texts(["night route", "fares in 2024"])

    `__init__` documents its arguments.
    """

    _in_loops = False

    def embed_texts(
        self,
        texts: Sequence[str],
        *,
        dtype: Dtype | None = None,
        pool_factor: int = 1,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Embed queries or passages: all of them, or none.

        Args:
            texts: queries or passages; blank ones are allowed.
            dtype: data type of the vectors on the wire; None is the client's own.
            pool_factor: merges similar vectors until about 1 / `pool_factor` are left.
            progress: called with (answered, all) after each request.

        Returns:
            One multi-vector, float32 (vectors, dim), for each text, in order.

        Raises:
            PagevecError: one of `pagevec.client.faults` or `pagevec.errors`; where one input is
                to blame, `index` is its position in `texts`.
            TypeError: `texts` is a single text.
        """
        answers = self._embed(self._options("text", dtype, pool_factor), texts, progress=progress)
        return [one.vectors for one in answers]

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        dtype: Dtype | None = None,
        pool_factor: int = 1,
        resize: bool | None = None,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Embed page images: all of them, or none.

        Args:
            images: paths, bytes of image files, Pillow images, or uint8 pixels: (h, w), (h, w, 3)
                or (h, w, 4).
            dtype: data type of the vectors on the wire; None is the client's own.
            pool_factor: merges similar vectors until about 1 / `pool_factor` are left.
            resize: whether to resize to the model's own size before sending; None is the
                client's own.
            progress: called with (answered, all) after each request.

        Returns:
            One multi-vector, float32 (vectors, dim), for each image, in order.

        Raises:
            PagevecError: one of `pagevec.client.faults` or `pagevec.errors`; where one input is
                to blame, `index` is its position in `images`.
            TypeError: `images` is a single image.
        """
        options = self._options("image", dtype, pool_factor)
        resize = self._resize if resize is None else resize
        return [one.vectors for one in self._embed(options, images, resize, progress)]

    def embed_query(self, text: str, *, dtype: Dtype | None = None) -> MultiVector:
        """Embed one query.

        Args:
            text: the query in words.
            dtype: data type of the vectors on the wire; None is the client's own.

        Returns:
            Its multi-vector, float32 (vectors, dim).

        Raises:
            PagevecError: as `embed_texts` raises it.
        """
        return self.embed_texts([text], dtype=dtype)[0]

    def embed_query_with_tokens(self, text: str, *, dtype: Dtype | None = None) -> Query:
        """Embed one query, and ask which token each vector belongs to.

        Args:
            text: the query in words.
            dtype: data type of the vectors on the wire; None is the client's own.

        Returns:
            The query with its multi-vector and one token for each vector; no tokens where
            `info().tells_tokens` is false.

        Raises:
            PagevecError: as `embed_texts` raises it.
        """
        tokens = self._drive(self._core.known_info()).tells_tokens
        [answer] = self._embed(self._options("text", dtype, tokens=tokens), [text])
        return Query(text, answer.vectors, answer.tokens)

    def info(self) -> ModelInfo:
        """Ask the service what it runs.

        Returns:
            Its model, how that resizes pages, and the service's limits. Fields that this version
            of pagevec does not know are left out.

        Raises:
            PagevecError: one of `pagevec.client.faults`.
        """
        return self._drive(self._core.info())

    def ask(self, request: Send, read: Read[T], stop: threading.Event | None = None) -> T:
        """Ask for anything that the service has, as patiently as for vectors.

        Args:
            request: `url` is a path of the service.
            read: returns what the answer says; see `pagevec.client.requests.json_reader`.
            stop: once it is set, nothing more is sent.

        Raises:
            PagevecError: one of `pagevec.client.faults`.
            CancelledError: `stop` was set.
        """
        return self._drive(self._core.ask(request, read), stop)

    def close(self) -> None:
        """Close the connections of this process."""
        opened = self._connections.forget()
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def _open_http(trusted: ssl.SSLContext, **options: Any) -> httpx.Client:
        transport = OwnedConnections(lambda: httpx.HTTPTransport(verify=trusted, trust_env=False))
        return httpx.Client(transport=transport, **options)

    def _embed(
        self,
        options: RequestOptions,
        inputs: Sequence[Any],
        resize: bool = False,
        progress: Progress | None = None,
    ) -> list[Embedding]:
        call = self._drive(self._core.plan(options, inputs, resize, progress))
        stop, pool = threading.Event(), ThreadPoolExecutor(self._in_flight)
        try:
            runs = {
                # The threads are in the caller's context, to which a trace belongs.
                pool.submit(copy_context().run, self._drive, self._core.embed(call, r), stop): r
                for r in call.runs
            }
            for done in as_completed(runs):
                call.add(runs[done], done.result())
        finally:
            # After an error: threads that are still at work send nothing more and are not awaited.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return call.result()

    def _drive(self, exchange: Exchange[T], stop: threading.Event | None = None) -> T:
        stop = stop or threading.Event()
        try:
            step = next(exchange)
            while not stop.is_set():
                try:
                    result = self._perform(step, stop)
                except httpx.RequestError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(result)
        except StopIteration as end:
            returned: T = end.value
            return returned
        raise CancelledError

    def _perform(self, step: Step, stop: threading.Event) -> Any:
        if isinstance(step, Send):
            return self._send(step)
        if isinstance(step, Sleep):
            return stop.wait(step.seconds)
        if isinstance(step, Reconnect):
            return self._connections.forget()
        return step.run()

    def _send(self, step: Send) -> httpx.Response:
        until = time.monotonic() + step.seconds
        with self._connections.current().stream(**self._request(step)) as response:
            content = b"".join(_before(until, response.iter_raw()))
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            content=content,
            request=response.request,
        )


def _before(until: float, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what comes in time: httpx's own timeout begins anew with each part."""
    for part in parts:
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the answer comes too slowly")
        yield part

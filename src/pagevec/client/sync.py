"""The synchronous client, whose threads perform the core's steps, and what both clients share."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx

from pagevec.client.core import Core, Exchange, Send, Sleep, Work
from pagevec.client.requests import Embedding, RequestOptions
from pagevec.client.retry import Endpoints, RetryPolicy
from pagevec.errors import ConfigurationError
from pagevec.types import ImageInput, InputType, ModelInfo, MultiVector, Progress, Query
from pagevec.wire.quantize import Dtype

T = TypeVar("T")
HttpClient = TypeVar("HttpClient", httpx.Client, httpx.AsyncClient)
_MIB = 1024 * 1024
_READ_SECONDS = 600.0  # a request may queue behind others; morphik-core waits as long
_TIMEOUT = httpx.Timeout(_READ_SECONDS, connect=30.0)


class BaseClient(Generic[HttpClient]):
    """What `Client` and `AsyncClient` share: their arguments, which `Client` documents."""

    _http_class: type[HttpClient]

    def __init__(
        self,
        url: str | Sequence[str],
        key: str | None = None,
        *,
        dtype: Dtype = "float16",
        resize: bool = True,
        timeout: httpx.Timeout = _TIMEOUT,
        max_inputs: int = 16,
        max_bytes: int = 32 * _MIB,
        in_flight: int = 4,
        attempts: int = 3,
        patience: float = 300.0,
        set_aside_seconds: float = 60.0,
    ) -> None:
        limits = {"max_inputs": max_inputs, "max_bytes": max_bytes}
        for name, number in {**limits, "in_flight": in_flight, "attempts": attempts}.items():
            if number < 1:
                raise ConfigurationError(f"{name}={number}: expected at least 1")
        self._dtype, self._resize, self._in_flight = dtype, resize, in_flight
        self._core = Core(
            Endpoints([url] if isinstance(url, str) else url, set_aside_seconds),
            RetryPolicy(attempts, patience),
            polling_seconds=timeout.read or _READ_SECONDS,
            **limits,
        )
        self._http: HttpClient = self._http_class(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            trust_env=False,  # a proxy or .netrc of the environment would see or replace the key
            follow_redirects=False,  # the core follows those that are safe
        )

    def _options(
        self, input_type: InputType, dtype: Dtype | None, pool_factor: int = 1, tokens: bool = False
    ) -> RequestOptions:
        return RequestOptions(input_type, dtype or self._dtype, pool_factor, tokens)


class Client(BaseClient[httpx.Client]):
    """A model behind HTTP (`pagevec.types.Model`); may be used from many threads.

    >>> with Client("http://127.0.0.1:8765", key) as client:  # doctest: +SKIP
    ...     vectors = client.embed_texts(["night route", "fares in 2024"])

    Args:
        url: address of the service. Several are asked in rotation; one that fails is set aside.
        key: bearer key, the same for all addresses.
        dtype: data type of vectors on the wire (see docs/http-api.md); calls return float32.
        resize: whether images are resized to the model's own size before they are sent, which
            takes fewer bytes. Needs Pillow.
        timeout: of a single request; its `read` also bounds how long a result is polled for.
        max_inputs: inputs in one request; the service's own limit counts too.
        max_bytes: bytes of one request; the service's own limit counts too.
        in_flight: requests of one call at the same time.
        attempts: of a request at each address, where it fails or gets no answer.
        patience: seconds for which a busy or starting service (429, 503) is asked again.
        set_aside_seconds: how long a failing address is left alone.

    Raises:
        ConfigurationError: an address is invalid, or a number is below 1.
    """

    _http_class = httpx.Client

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
            runs = {pool.submit(self._drive, self._core.embed(call, r), stop): r for r in call.runs}
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

    def _perform(self, step: Send | Sleep | Work, stop: threading.Event) -> Any:
        if isinstance(step, Send):
            return self._http.request(
                step.method, step.url, content=step.content, headers=step.headers
            )
        return stop.wait(step.seconds) if isinstance(step, Sleep) else step.run()

"""The asynchronous client, whose tasks perform the core's steps."""

import asyncio
import math
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from pagevec.client.base import BaseClient
from pagevec.client.core import Exchange, Reconnect, Send, Sleep, Step
from pagevec.client.requests import Call, Embedding, RequestOptions
from pagevec.types import ImageInput, ModelInfo, MultiVector, Progress, Query
from pagevec.wire.quantize import Dtype

T = TypeVar("T")


class AsyncClient(BaseClient[httpx.AsyncClient]):
    """The asynchronous twin of `Client`; it takes the same arguments, which `__init__` documents.

    Each event loop that it is used from has connections of its own.

    >>> async with AsyncClient("http://127.0.0.1:8765", key) as client:  # doctest: +SKIP
    ...     vectors = await client.embed_texts(["night route", "fares in 2024"])
    """

    _in_loops = True

    async def embed_texts(
        self,
        texts: Sequence[str],
        *,
        dtype: Dtype | None = None,
        pool_factor: int = 1,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Take, return and raise what `Client.embed_texts` does."""
        options = self._options("text", dtype, pool_factor)
        return [one.vectors for one in await self._embed(options, texts, progress=progress)]

    async def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        dtype: Dtype | None = None,
        pool_factor: int = 1,
        resize: bool | None = None,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Take, return and raise what `Client.embed_images` does."""
        options = self._options("image", dtype, pool_factor)
        resize = self._resize if resize is None else resize
        return [one.vectors for one in await self._embed(options, images, resize, progress)]

    async def embed_query(self, text: str, *, dtype: Dtype | None = None) -> MultiVector:
        """Take, return and raise what `Client.embed_query` does."""
        return (await self.embed_texts([text], dtype=dtype))[0]

    async def embed_query_with_tokens(self, text: str, *, dtype: Dtype | None = None) -> Query:
        """Take, return and raise what `Client.embed_query_with_tokens` does."""
        tokens = (await self._drive(self._core.known_info())).tells_tokens
        [answer] = await self._embed(self._options("text", dtype, tokens=tokens), [text])
        return Query(text, answer.vectors, answer.tokens)

    async def info(self) -> ModelInfo:
        """Return and raise what `Client.info` does."""
        return await self._drive(self._core.info())

    async def aclose(self) -> None:
        """Close the connections of this process and of the running event loop."""
        opened = self._connections.forget(asyncio.get_running_loop())
        if opened is not None:
            await opened.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @staticmethod
    def _open_http(trusted: ssl.SSLContext, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=trusted, **options)

    async def _embed(
        self,
        options: RequestOptions,
        inputs: Sequence[Any],
        resize: bool = False,
        progress: Progress | None = None,
    ) -> list[Embedding]:
        call = await self._drive(self._core.plan(options, inputs, resize, progress))
        slots = asyncio.Semaphore(self._in_flight)
        tasks = [asyncio.create_task(self._embed_run(call, run, slots)) for run in call.runs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return call.result()

    async def _embed_run(self, call: Call, run: range, slots: asyncio.Semaphore) -> None:
        async with slots:
            call.add(run, await self._drive(self._core.embed(call, run)))

    async def _drive(self, exchange: Exchange[T]) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    result = await self._perform(step)
                except httpx.RequestError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(result)
        except StopIteration as end:
            returned: T = end.value
            return returned

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Send):
            return await self._send(step)
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Reconnect):
            return self._connections.forget(asyncio.get_running_loop())
        return await asyncio.to_thread(step.run)

    async def _send(self, step: Send) -> httpx.Response:
        http = self._connections.current(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(None if math.isinf(step.seconds) else step.seconds):
                response: httpx.Response = await http.request(**self._request(step))
                return response
        except TimeoutError:
            raise httpx.ReadTimeout("the answer comes too slowly") from None

"""The asynchronous client: tasks carry the steps out. See `sync` for what the calls say."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from pagevec.client._protocol import Call
from pagevec.client.base import BaseClient, checked
from pagevec.client.images import ImageInput
from pagevec.client.job import Job, Progress
from pagevec.client.steps import Exchange, Send, Sleep, Work
from pagevec.types import MultiVector
from pagevec.wire.quantize import Dtype

T = TypeVar("T")


class AsyncClient(BaseClient):
    """Asks an embedding service, from one event loop.

    >>> async with AsyncClient("http://127.0.0.1:8765", key) as client:  # doctest: +SKIP
    ...     vectors = await client.embed_texts(["which page says so?"])
    """

    async def embed_texts(
        self,
        texts: Sequence[str],
        *,
        dtype: Dtype = "float16",
        pool_factor: int = 1,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Return one multi-vector for each text, as `Client.embed_texts` does."""
        return await self._embed(Call("text", dtype, pool_factor), texts, False, progress)

    async def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        dtype: Dtype = "float16",
        pool_factor: int = 1,
        resize: bool = True,
        progress: Progress | None = None,
    ) -> list[MultiVector]:
        """Return one multi-vector for each image, as `Client.embed_images` does."""
        return await self._embed(Call("image", dtype, pool_factor), images, resize, progress)

    async def embed_query(self, text: str, *, dtype: Dtype = "float16") -> MultiVector:
        """Return the multi-vector of a query, as `Client.embed_query` does."""
        return (await self.embed_texts([text], dtype=dtype))[0]

    async def info(self) -> dict[str, Any]:
        """Return what the service says of its model and its limits."""
        return await self._drive(self._core.info())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _connect(self, **options: Any) -> None:
        self._http = httpx.AsyncClient(**options)

    async def _embed(
        self, call: Call, inputs: Sequence[Any], resize: bool, progress: Progress | None
    ) -> list[MultiVector]:
        job = await self._drive(self._core.job(call, checked(inputs), resize, progress))
        slots = asyncio.Semaphore(self._in_flight)
        tasks = [asyncio.create_task(self._embed_run(job, run, slots)) for run in job.runs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return job.result()

    async def _embed_run(self, job: Job, run: range, slots: asyncio.Semaphore) -> None:
        async with slots:
            job.add(run, await self._drive(self._core.embed(job, run)))

    async def _drive(self, exchange: Exchange[T]) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    outcome = await self._outcome(step)
                except httpx.RequestError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _outcome(self, step: Send | Sleep | Work) -> Any:
        if isinstance(step, Send):
            return await self._http.request(
                step.method, step.url, content=step.content, headers=step.headers
            )
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        return await asyncio.to_thread(step.do)

"""The plain loop: a service around colpali-engine as people write it first.

One sync FastAPI endpoint with eager attention. Pages go through the model one at a time, texts four
at a time with their padding; vectors become lists and FastAPI's own JSON; garbage is collected
after each batch, which alone takes about 0.2 s beside transformers. The model needs a lock, since a
processor fails when two threads use it. The lean loop (`--lean`) has transformers' default
attention (SDPA) and collects no garbage.
"""

import base64
import gc
import threading
from io import BytesIO
from typing import Annotated, Any, Literal

import click
import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from pydantic import BaseModel

from pagevec.engine.models.compat import import_torchvision

_TEXTS_AT_ONCE = 4

Credentials = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


class EmbeddingsRequest(BaseModel):
    """The body of a request, as `pagevec serve` takes it."""

    input_type: Literal["text", "image"]
    inputs: list[str]


class PlainLoop:
    """Embeds with colpali-engine alone, on the CPU."""

    def __init__(self, checkpoint: str, lean: bool) -> None:
        import_torchvision()
        from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor

        self._model = ColQwen2_5.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="sdpa" if lean else "eager"
        ).eval()
        self._processor = ColQwen2_5_Processor.from_pretrained(checkpoint)
        self._collects = not lean
        self._one_at_a_time = threading.Lock()

    def embed(self, request: EmbeddingsRequest) -> list[Any]:
        """Return (vectors, dim) for each input as nested lists, including padding rows."""
        with self._one_at_a_time:
            if request.input_type == "image":
                return [self._page(text) for text in request.inputs]
            starts = range(0, len(request.inputs), _TEXTS_AT_ONCE)
            return [row for i in starts for row in self._texts(request.inputs[i:][:_TEXTS_AT_ONCE])]

    def _page(self, text: str) -> Any:
        image = Image.open(BytesIO(base64.b64decode(text))).convert("RGB")
        return self._lists(self._processor.process_images([image]))[0]

    def _texts(self, texts: list[str]) -> list[Any]:
        return self._lists(self._processor.process_queries(texts))

    def _lists(self, batch: Any) -> list[Any]:
        with torch.no_grad():
            vectors = self._model(**batch)
        rows: list[Any] = vectors.cpu().tolist()
        del batch, vectors
        if self._collects:
            gc.collect()
        return rows


def create_app(loop: PlainLoop, key: str) -> FastAPI:
    """Return the service."""
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/embeddings")
    def embeddings(request: EmbeddingsRequest, sent: Credentials) -> dict[str, Any]:
        if sent.credentials != key:
            raise HTTPException(401, "wrong key")
        return {"embeddings": loop.embed(request)}

    return app


@click.command()
@click.option("--model", required=True, help="Directory of a ColQwen2.5 checkpoint.")
@click.option("--port", type=int, required=True, help="Port on loopback.")
@click.option("--key", required=True, help="Bearer key.")
@click.option("--lean", is_flag=True, help="SDPA attention, no garbage collection.")
def main(model: str, port: int, key: str, lean: bool) -> None:
    """Serve the plain loop on loopback."""
    uvicorn.run(create_app(PlainLoop(model, lean), key), host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()

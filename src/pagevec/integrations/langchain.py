"""pagevec in LangChain: a retriever of pages, a compressor that ranks pages, blocks for prompts."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pagevec.extras import explain_missing
from pagevec.integrations.pages import (
    JPEG,
    WIDTH,
    PageSearch,
    PageToRank,
    RetrievedPage,
    rank_pages,
    require_model,
)
from pagevec.search.aio import AsyncIndex
from pagevec.search.index import Index
from pagevec.search.results import check_count
from pagevec.types import Model

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.messages import ContentBlock, ImageContentBlock, TextContentBlock
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, SkipValidation
except ImportError as error:
    raise ImportError(explain_missing(error, "langchain"), name=error.name) from error


class PagevecRetriever(BaseRetriever):
    """Finds the pages that answer a query, as LangChain's `Document`.

    `page_content` is the page's text. `metadata` has its `document`, the number of the `page`, its
    `score`, and as `image` its picture: a content block that goes into a message as it is (see
    `page_blocks`). Where there is no picture, or only the small one in the store, `image_error`
    says why.

    Args:
        index: a `pagevec.Index` of a store here or of a service; with a `pagevec.AsyncIndex` only
            the asynchronous calls work. It stays open.
        k: how many pages at most.
        width: of the pictures, in pixels at most, from 16 to 2000.
        with_images: whether pictures are wanted at all.
        documents: only pages of these documents, or below these folders.
        where: only pages whose metadata has these values.

    Raises:
        InvalidRequest: `k` or `width` is out of range; at a call: the query is blank.
        PagevecError: at a call, whatever `Index.search` raises.

    >>> retriever = PagevecRetriever(index=index, k=3)  # doctest: +SKIP
    >>> documents = retriever.invoke("parcels and punctuality")  # doctest: +SKIP
    """

    index: Index | AsyncIndex
    k: int = 10
    width: int = WIDTH
    with_images: bool = True
    documents: Sequence[str] = ()
    where: Mapping[str, Any] | None = None

    def model_post_init(self, context: Any, /) -> None:
        check_count("k", self.k)
        self._search()

    def _search(self) -> PageSearch:
        return PageSearch(
            self.index, self.k, self.width, self.with_images, self.documents, self.where
        )

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return list(map(_document_of, self._search().run(query)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return list(map(_document_of, await self._search().run_async(query)))


class PagevecReranker(BaseDocumentCompressor):
    """Ranks pages by MaxSim with a query: by their images, else by their texts.

    The image of a `Document` is the content block in its metadata's `image`, with base64; images
    that are addresses are not fetched. `metadata` gets a `relevance_score`, and where a page could
    not be ranked, or only by its text although it has an image, a `relevance_error`.

    Args:
        model: `pagevec.load(...)` or `pagevec.Client(...)`; it stays open.
        top_n: how many pages are kept; None: all of them.

    Raises:
        ConfigurationError: `model` is none.
        InvalidRequest: `top_n` is below 1; at a call: the query is blank.
        PagevecError: at a call, if the model does not answer.

    >>> reranker = PagevecReranker(model=model, top_n=3)  # doctest: +SKIP
    >>> best = reranker.compress_documents(documents, "night route")  # doctest: +SKIP
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Annotated[Model, SkipValidation]
    top_n: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        require_model(self.model)
        if self.top_n is not None:
            check_count("top_n", self.top_n)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        ranks = rank_pages(self.model, query, list(map(_page_of, documents)))
        ranked = []
        for rank in ranks[: self.top_n]:
            document = documents[rank.place]
            metadata = {**document.metadata, "relevance_score": rank.score}
            if rank.fault is not None:
                metadata["relevance_error"] = rank.fault
            ranked.append(document.model_copy(update={"metadata": metadata}))
        return ranked


def page_blocks(documents: Sequence[Document]) -> list[ContentBlock]:
    """Return pages as the content of a message to a model that reads images.

    Args:
        documents: of `PagevecRetriever` or `PagevecReranker`.

    Returns:
        For each page its name, and its picture, or its text where it has no picture.

    >>> question = {"type": "text", "text": "How many parcels?"}  # doctest: +SKIP
    >>> HumanMessage(content_blocks=[*page_blocks(documents), question])  # doctest: +SKIP
    """
    blocks: list[ContentBlock] = []
    for document in documents:
        metadata = document.metadata
        name = f"{metadata.get('document', document.id)}, page {metadata.get('page', '?')}"
        image = metadata.get("image")
        said = f"{name}:" if image else f"{name}:\n{document.page_content}"
        blocks.append(TextContentBlock(type="text", text=said))
        if image:
            blocks.append(image)
    return blocks


def _document_of(page: RetrievedPage) -> Document:
    metadata = {**page.metadata, "score": page.score}
    if page.image_base64 is not None:
        image = ImageContentBlock(type="image", base64=page.image_base64, mime_type=JPEG)
        metadata["image"] = image
    return Document(id=page.name, page_content=page.text, metadata=metadata)


def _page_of(document: Document) -> PageToRank:
    image, text = document.metadata.get("image"), document.page_content
    if image is None:
        return PageToRank(text)
    encoded = image.get("base64") if isinstance(image, Mapping) else None
    if not isinstance(encoded, str):
        return PageToRank(text, fault="metadata['image'] is no content block with base64")
    return PageToRank.from_base64(text, encoded)

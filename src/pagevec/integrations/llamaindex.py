"""pagevec in LlamaIndex: a retriever of pages, and a postprocessor that ranks pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pagevec.errors import InvalidRequest
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
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import (
        BaseNode,
        ImageNode,
        MetadataMode,
        Node,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from pydantic import Field, SkipValidation
except ImportError as error:
    raise ImportError(explain_missing(error, "llamaindex"), name=error.name) from error

_SHOWN = ("document", "page")  # of the metadata, to models


class PagevecRetriever(BaseRetriever):
    """Finds the pages that answer a query: an `ImageNode` for each, a `TextNode` for a text.

    `text` is the page's text, `image` its picture in base64: response synthesizers with
    `multimodal=True` show it to the model, with the names of document and page. Where there is no
    picture, or only the small one in the store, `image_error` in the metadata says why.

    Args:
        index: a `pagevec.Index` of a store here or of a service; with a `pagevec.AsyncIndex` only
            the asynchronous calls work. It stays open.
        similarity_top_k: how many pages at most.
        width: of the pictures, in pixels at most, from 16 to 2000.
        with_images: whether pictures are wanted at all.
        documents: only pages of these documents, or below these folders.
        where: only pages whose metadata has these values.
        options: of LlamaIndex's `BaseRetriever`.

    Raises:
        InvalidRequest: a number is out of range; at a call: the query is blank.
        PagevecError: at a call, whatever `Index.search` raises.

    >>> retriever = PagevecRetriever(index, similarity_top_k=3)  # doctest: +SKIP
    >>> nodes = retriever.retrieve("parcels and punctuality")  # doctest: +SKIP
    """

    def __init__(
        self,
        index: Index | AsyncIndex,
        *,
        similarity_top_k: int = 10,
        width: int = WIDTH,
        with_images: bool = True,
        documents: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_count("similarity_top_k", similarity_top_k)
        self._search = PageSearch(index, similarity_top_k, width, with_images, documents, where)
        super().__init__(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(map(_node_of, self._search.run(query_bundle.query_str)))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(map(_node_of, await self._search.run_async(query_bundle.query_str)))


class PagevecReranker(BaseNodePostprocessor):
    """Ranks nodes by MaxSim with a query: by their images, else by their texts.

    An image is read from a node itself or from its path; addresses are not fetched. Where a node
    could not be ranked, or only by its text although it has an image, its metadata says so in
    `score_error`; one that could not be ranked has no score.

    Args:
        model: `pagevec.load(...)` or `pagevec.Client(...)`; it stays open.
        top_n: how many nodes are kept; None: all of them.

    Raises:
        ConfigurationError: `model` is none.
        InvalidRequest: `top_n` is below 1; at a call: there is no query, or it is blank.
        PagevecError: at a call, if the model does not answer.

    >>> reranker = PagevecReranker(model=model, top_n=3)  # doctest: +SKIP
    >>> best = reranker.postprocess_nodes(nodes, query_str="night route")  # doctest: +SKIP
    """

    model: Annotated[Model, SkipValidation] = Field(exclude=True)
    top_n: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        require_model(self.model)
        if self.top_n is not None:
            check_count("top_n", self.top_n)

    @classmethod
    def class_name(cls) -> str:
        return "PagevecReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidRequest("query_str: it is missing; pages are ranked by a query")
        pages = [_page_of(one.node) for one in nodes]
        ranked = []
        for rank in rank_pages(self.model, query_bundle.query_str, pages)[: self.top_n]:
            node = nodes[rank.place].node
            if rank.fault is not None:
                metadata = {**node.metadata, "score_error": rank.fault}
                hidden = [*node.excluded_llm_metadata_keys, "score_error"]
                update = {"metadata": metadata, "excluded_llm_metadata_keys": hidden}
                node = node.model_copy(update=update)
            ranked.append(NodeWithScore(node=node, score=rank.score))
        return ranked


def _node_of(page: RetrievedPage) -> NodeWithScore:
    hidden = [name for name in page.metadata if name not in _SHOWN]
    document = RelatedNodeInfo(node_id=page.metadata["document"])
    content: dict[str, Any] = {
        "id_": page.name,
        "text": page.text,
        "metadata": page.metadata,
        "excluded_llm_metadata_keys": hidden,
        "excluded_embed_metadata_keys": hidden,
        "relationships": {NodeRelationship.SOURCE: document},
    }
    if page.image_base64 is None:
        return NodeWithScore(node=TextNode(**content), score=page.score)
    node = ImageNode(image=page.image_base64, image_mimetype=JPEG, **content)
    return NodeWithScore(node=node, score=page.score)


def _page_of(node: BaseNode) -> PageToRank:
    text = node.get_content(MetadataMode.NONE)
    encoded: str | bytes | None
    path: str | Path | None
    url: object
    if isinstance(node, ImageNode):
        encoded, path, url = node.image, node.image_path, node.image_url
    elif isinstance(node, Node) and node.image_resource is not None:
        resource = node.image_resource
        encoded, path, url = resource.data, resource.path, resource.url
    else:
        return PageToRank(text)
    if encoded:
        return PageToRank.from_base64(text, encoded)
    if path:
        return PageToRank(text, Path(path))
    return PageToRank(text, fault="the image is an address, which is not fetched" if url else None)

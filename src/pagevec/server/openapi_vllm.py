"""The description, in OpenAPI, of the paths of vLLM, Jina and OpenAI, with an example each."""

from typing import Any

from pagevec.samples import draw_pages

Json = dict[str, Any]

_PAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{draw_pages()[0]}"}}
_TEXTS = ["night route", "fares in 2024"]
# Without a type: generators of clients know no input that is a text, an object or a list.
_INPUT: Json = {
    "description": "a text; or an object with one of text, image (base64), content (parts)"
}
_INPUTS: Json = {"description": f"one input, or a list of them; each is {_INPUT['description']}"}
_MODEL: Json = {"type": ["string", "null"], "description": "one that GET /v1/models lists"}
_FORM: Json = {
    "encoding_format": {
        "type": "string",
        "enum": ["float", "base64", "bytes", "bytes_only"],
        "description": "numbers; base64 in JSON; bytes with their shapes in the header `metadata`",
    },
    "embed_dtype": {"type": "string", "enum": ["float32", "float16"]},
    "endianness": {"type": "string", "enum": ["native", "little", "big"]},
}
_VECTORS = [[0.6, 0.8], [-1.0, 0.0]]
_HEAD: Json = {"object": "list", "created": 0, "model": "bundled"}
_USAGE: Json = {"usage": {"prompt_tokens": 12, "total_tokens": 12}}


def vllm_paths(refusals: Json) -> Json:
    """Return the paths.

    Args:
        refusals: the responses other than 200 that each of them may have.
    """

    def post(name: str, texts: tuple[str, str], fields: Json, asked: Json, answer: Json) -> Json:
        schema = {"type": "object", "properties": {"model": _MODEL, **fields}}
        body = {"application/json": {"schema": schema, "example": asked}}
        return {
            **_operation(name, texts, {**answer, **_USAGE}, refusals),
            "requestBody": {"required": True, "content": body},
        }

    messages = [{"role": "user", "content": [_PAGE]}]
    pooling = post(
        "pooling",
        ("Multi-vectors, as vLLM has them", "Of `input`, or of one message with a text or a page."),
        {"input": _INPUTS, "messages": {"type": "array", "items": {"type": "object"}}, **_FORM},
        {"messages": messages},
        {**_HEAD, "id": "pool-1", "data": [{"index": 0, "object": "pooling", "data": _VECTORS}]},
    )
    embeddings = post(
        "openai_embeddings",
        ("Multi-vectors, as Jina has them", "Only with `return_multivector`."),
        {"input": _INPUTS, "return_multivector": {"type": "boolean"}, **_FORM},
        {"input": [{"text": _TEXTS[0]}], "return_multivector": True},
        {
            **_HEAD,
            "id": "embd-1",
            "data": [{"index": 0, "object": "embedding", "embeddings": _VECTORS}],
        },
    )
    best = {"index": 1, "document": {"text": None}, "relevance_score": 14.2}
    options = {"top_n": {"type": ["integer", "null"]}, "return_documents": {"type": "boolean"}}
    rerank = post(
        "rerank",
        ("Order documents by MaxSim", "Texts or page images, on both sides; the best first."),
        {"query": _INPUT, "documents": _INPUTS, **options},
        {"query": _TEXTS[0], "documents": [_TEXTS[1], {"content": [_PAGE]}], "top_n": 1},
        {"id": "rerank-1", "model": "bundled", "results": [best]},
    )
    score = post(
        "score",
        ("Score pairs by MaxSim", "Or one input on one side with each on the other."),
        dict.fromkeys(("queries", "documents", "items", "text_1", "text_2"), _INPUTS),
        {"queries": _TEXTS[0], "documents": [_TEXTS[1], {"content": [_PAGE]}]},
        {**_HEAD, "id": "score-1", "data": [{"index": 0, "object": "score", "score": 14.2}]},
    )
    known = {"id": "bundled", "object": "model", "created": 0, "owned_by": "pagevec"}
    models = _operation(
        "list_models",
        ("The names of the model", "Those that `model` may have on the paths beside this one."),
        {"object": "list", "data": [known]},
        refusals,
    )
    return {
        "/v1/models": {"get": models},
        "/pooling": {"post": pooling},
        "/v1/embeddings": {"post": embeddings},
        **{path: _named(rerank, path) for path in ("/rerank", "/v1/rerank", "/v2/rerank")},
        **{path: _named(score, path) for path in ("/score", "/v1/score")},
    }


def _operation(name: str, texts: tuple[str, str], answer: Json, refusals: Json) -> Json:
    summary, description = texts
    content = {"application/json": {"schema": {"type": "object"}, "example": answer}}
    return {
        "operationId": name,
        "tags": ["vllm"],
        "summary": summary,
        "description": description,
        "security": [{"bearer": []}],
        "responses": {"200": {"description": summary, "content": content}, **refusals},
    }


def _named(operation: Json, path: str) -> Json:
    return {"post": {**operation, "operationId": path.strip("/").replace("/", "_")}}

"""What clients of vLLM, Jina and OpenAI ask: their bodies, read.

Bodies come from `pagevec.wire.values`. An input is a text or one page image. What would change the
vectors and cannot be done is refused; what only tells about the caller is ignored. Sources: vLLM's
documentation ("Pooling models", 2026), the embeddings and reranker API of Jina, the rerank API (v2)
of Cohere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pagevec.errors import InvalidRequest, PagevecError
from pagevec.wire.values import Picture
from pagevec.wire.vllm_answers import Encoding, Endianness, Precision, VectorForm

Input = str | bytes
"""A text, or an image file."""

EmbeddingField = Literal["embedding", "embeddings"]

# vLLM's fields that say nothing about the vectors of a late-interaction model.
_IGNORED = frozenset(
    {
        "user", "request_id", "priority", "cache_salt", "add_special_tokens", "use_activation",
        "add_generation_prompt", "continue_final_message", "mm_processor_kwargs",
        "media_io_kwargs", "chat_template_kwargs", "padding", "truncation_side", "softmax",
        "activation", "normalize", "normalized", "return_tokenized_input", "rank_fields",
        "max_chunks_per_doc", "max_tokens_per_doc", "input_type", "late_chunking",
    }
)  # fmt: skip
_TASKS = (None, "token_embed", "encode")
_PROMPT = "Describe the image."  # what the models' own processors put behind a page


@dataclass(frozen=True, eq=False)
class PoolingRequest:
    """`POST /pooling`: what shall be embedded."""

    model: str | None
    inputs: list[Input]
    form: VectorForm


@dataclass(frozen=True, eq=False)
class EmbeddingRequest:
    """`POST /v1/embeddings`: what shall be embedded.

    Attributes:
        field: of each answer, in which the multi-vector is: as OpenAI's clients or Jina's read it.
    """

    model: str | None
    inputs: list[Input]
    field: EmbeddingField


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """`POST /score`: pairs; one of the sides may have one input for all of the other's."""

    model: str | None
    left: list[Input]
    right: list[Input]

    @property
    def inputs(self) -> list[Input]:
        """All inputs, those on the left first."""
        return [*self.left, *self.right]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of each pair, on the left and on the right."""
        count = max(len(self.left), len(self.right))
        return [
            (min(one, len(self.left) - 1), min(one, len(self.right) - 1)) for one in range(count)
        ]


@dataclass(frozen=True, eq=False)
class RerankRequest:
    """`POST /rerank`: documents, to be ordered by how well they answer a query."""

    model: str | None
    query: Input
    documents: list[Input]
    most: int
    with_documents: bool

    @property
    def inputs(self) -> list[Input]:
        """The query and the documents."""
        return [self.query, *self.documents]


def read_pooling(content: Any) -> PoolingRequest:
    """Return what a body of `/pooling` asks for.

    Raises:
        InvalidRequest: it is not of the documented form, or asks for what cannot be done.
    """
    fields = _fields(content, {"input", "messages"} | _FORM)
    if "messages" in fields:
        if "input" in fields:
            raise InvalidRequest("send either input or messages")
        inputs = [_read_messages(fields["messages"])]
    else:
        inputs = _read_many(fields, "input", _read_text)
    return PoolingRequest(_model(fields), inputs, _read_form(fields))


def read_embeddings(content: Any) -> EmbeddingRequest:
    """Return what a body of `/v1/embeddings` asks for, in Jina's multi-vector form.

    Raises:
        InvalidRequest: it wants one dense vector for each input, or is not of that form.
    """
    known = {"input", "return_multivector", "embedding_type", "truncate"} | _FORM
    fields = _fields(content, known)
    if fields.get("return_multivector") is not True:
        raise InvalidRequest(
            "this model has no single dense vector for an input: ask for its multi-vectors, with "
            '"return_multivector": true here, or with POST /pooling'
        )
    if _read_form(fields).encoding not in ("float", "base64"):
        raise InvalidRequest("encoding_format: expected 'float'; POST /pooling has other ones")
    # OpenAI's client always sends this field, base64 unless told otherwise, and reads `embedding`.
    # Base64 would lose the rows of a multi-vector, so that it gets numbers all the same.
    own: EmbeddingField = "embedding" if "encoding_format" in fields else "embeddings"
    inputs = _read_many(fields, "input", _read_document)
    return EmbeddingRequest(_model(fields), inputs, own)


def read_score(content: Any) -> ScoreRequest:
    """Return what a body of `/score` asks for.

    Raises:
        InvalidRequest: it is not of one of the documented forms.
    """
    sides = (
        ("queries", "documents"),
        ("queries", "items"),
        ("text_1", "text_2"),
        ("data_1", "data_2"),
    )
    fields = _fields(content, {name for side in sides for name in side} | {"encoding_format"})
    side = next((one for one in sides if all(name in fields for name in one)), None)
    if side is None:
        raise InvalidRequest("send queries and documents (or text_1 and text_2, data_1 and data_2)")
    left, right = (_read_many(fields, name, _read_document) for name in side)
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        raise InvalidRequest(
            f"{side[0]} has {len(left)} inputs and {side[1]} {len(right)}: as many, or one for all"
        )
    return ScoreRequest(_model(fields), left, right)


def read_rerank(content: Any) -> RerankRequest:
    """Return what a body of `/rerank` asks for.

    Raises:
        InvalidRequest: it is not of the documented form.
    """
    fields = _fields(content, {"query", "documents", "top_n", "return_documents"})
    if "query" not in fields:
        raise InvalidRequest("query: it is missing")
    documents = _read_many(fields, "documents", _read_document)
    most = fields.get("top_n") or 0
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise InvalidRequest("top_n: expected a whole number, at least 0")
    with_documents = fields.get("return_documents", True)
    query = _read_document(fields["query"])
    return RerankRequest(
        _model(fields), query, documents, most or len(documents), with_documents is not False
    )


_FORM = {
    "encoding_format",
    "embed_dtype",
    "endianness",
    "dimensions",
    "truncate_prompt_tokens",
    "task",
}


def _fields(content: Any, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise InvalidRequest("body: expected an object")
    unknown = sorted(set(content) - known - _IGNORED - {"model", "truncate_prompt_tokens", "task"})
    if unknown:
        raise InvalidRequest(
            f"unknown field {unknown[0][:40]!r}; known fields: model, {', '.join(sorted(known))}"
        )
    if content.get("dimensions") is not None:
        raise InvalidRequest("dimensions: this model has vectors of one length; leave it out")
    if content.get("truncate_prompt_tokens") not in (None, -1):
        raise InvalidRequest("truncate_prompt_tokens: texts are never cut; leave it out")
    return content


def _model(fields: Mapping[str, Any]) -> str | None:
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("model: expected a name")
    return model


def _read_form(fields: Mapping[str, Any]) -> VectorForm:
    task = fields.get("task")
    if not (task is None or isinstance(task, str)):
        raise InvalidRequest("task: expected a word")
    if (
        task is not None
        and task not in _TASKS
        and not task.startswith(("retrieval", "text-", "code"))
    ):
        raise InvalidRequest(f"task={task[:40]!r}: this model's is 'token_embed'")

    def choose(name: str, kind: Any, default: str) -> Any:
        value = fields.get(name)
        value = default if value is None else value
        if value not in get_args(kind):
            expected = ", ".join(map(repr, get_args(kind)))
            raise InvalidRequest(f"{name}={str(value)[:40]!r}: expected one of {expected}")
        return value

    return VectorForm(
        choose("encoding_format", Encoding, "float"),
        choose("embed_dtype", Precision, "float32"),
        choose("endianness", Endianness, "native"),
    )


def _read_many(fields: Mapping[str, Any], name: str, read: Callable[[Any], Input]) -> list[Input]:
    """Read a list of inputs, or one; an error says which."""
    if name not in fields:
        raise InvalidRequest(f"{name}: it is missing")
    given = fields[name]
    if not isinstance(given, list):
        return [read(given)]
    inputs = []
    for index, one in enumerate(given):
        try:
            inputs.append(read(one))
        except PagevecError as error:
            raise error.at(index) from None
    if not inputs:
        raise InvalidRequest(f"{name}: it is empty")
    return inputs


def _read_text(given: Any) -> Input:
    if isinstance(given, str):
        return given
    if isinstance(given, int | list):
        raise InvalidRequest("token ids are not read here: send texts")
    if isinstance(given, dict):
        return _read_document(given)
    raise InvalidRequest("expected a text")


def _read_document(given: Any) -> Input:
    """Read an input of any of the forms: a text, Jina's and Cohere's objects, vLLM's `content`."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        return _read_parts(given)
    if not isinstance(given, dict):
        raise InvalidRequest("expected a text, or an object with text, image or content")
    kinds = [name for name in ("text", "image", "content", "url") if name in given]
    if len(kinds) != 1:
        raise InvalidRequest("expected an object with one of text, image, content")
    value = given[kinds[0]]
    if isinstance(value, str) or kinds[0] in ("image", "url"):
        return _read_picture(value) if kinds[0] in ("image", "url") else value
    if kinds[0] == "content":
        return _read_parts(value)
    raise InvalidRequest(f"{kinds[0]}: expected a text")


def _read_messages(messages: Any) -> Input:
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise InvalidRequest("messages: expected one message, of which the content is embedded")
    if messages[0].get("role") not in (None, "user"):
        raise InvalidRequest("messages: expected one message of the user")
    content = messages[0].get("content")
    return content if isinstance(content, str) else _read_parts(content)


def _read_parts(parts: Any) -> Input:
    """Read the parts of one input: one picture, or texts, which belong together."""
    if not isinstance(parts, list) or not parts:
        raise InvalidRequest("content: expected a text, or a list of parts")
    read = [_read_part(part) for part in parts]
    pictures = [one for one in read if isinstance(one, bytes)]
    texts = [one for one in read if isinstance(one, str)]
    if not pictures:
        return "".join(texts)
    said = "".join(texts).strip()
    if len(pictures) > 1:
        raise InvalidRequest("content: expected one picture; each one is an input of its own")
    if said not in ("", _PROMPT):
        raise InvalidRequest(
            "content: a page is embedded as a picture alone, with the model's own prompt: send "
            "the text as another input"
        )
    return pictures[0]


def _read_part(part: Any) -> Input:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "input_text") and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    if kind in ("image_url", "input_image", "image"):
        picture = part.get("image_url", part.get("image"))
        return _read_picture(picture.get("url") if isinstance(picture, dict) else picture)
    raise InvalidRequest("content: expected parts of type text or image_url")


def _read_picture(picture: Any) -> bytes:
    if not isinstance(picture, Picture):
        raise InvalidRequest("expected a picture: a data URI, or base64")
    if isinstance(picture.content, PagevecError):
        raise picture.content
    return picture.content

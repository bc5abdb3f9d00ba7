"""The request and response bodies of the HTTP contract."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from pagevec.errors import InvalidRequest
from pagevec.types import InputType, Token
from pagevec.wire.quantize import Dtype


class EmbeddingsRequest(BaseModel):
    """`POST /embeddings`: inputs of one kind, and how their vectors are sent back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    input_type: InputType = Field(description="what all inputs are")
    inputs: Annotated[list[str], FailFast()] = Field(
        description="texts, or image files in base64 (bare or as data URIs); may be empty"
    )
    dtype: Dtype = Field("float32", description="dtype of the vectors in the answer")
    pool_factor: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="merge similar vectors until about 1 / pool_factor of them are left"
    )
    tokens: bool = Field(
        False,
        description="answer the token behind each vector too; for texts with pool_factor 1",
    )


# Fields of answers that may be missing, and are never null.


class EmbeddingsResponse(BaseModel):
    """One multi-vector for each input, in the inputs' order, ragged."""

    embeddings: list[list[list[float]]] = Field(
        description="of each input its vectors, of each vector its components"
    )
    dtype: Literal["float16", "int8", "binary"] | SkipJsonSchema[None] = Field(
        None, description="dtype of the vectors, unless it is float32"
    )
    scales: list[list[float]] | SkipJsonSchema[None] = Field(
        None, description="int8 only: the scale of each vector"
    )
    dim: int | SkipJsonSchema[None] = Field(
        None,
        description="binary only: components of a vector, if they are not a multiple of 8 and "
        "the last bits of its last byte do not count",
    )
    tokens: list[list[Token]] | SkipJsonSchema[None] = Field(
        None, description="if asked for: for each text, one token for each of its vectors"
    )


class ErrorResponse(BaseModel):
    """Every error has this form."""

    error: str = Field(description="what is wrong, and what to do about it")
    code: str = Field(description="the kind of error, for programs to match")
    index: int | SkipJsonSchema[None] = Field(
        None, description="position of the input at fault, if it is one"
    )


class ServiceStatus(BaseModel):
    """What `/health` and `/ready` answer with 200."""

    status: Literal["alive", "ready"] = Field(description="what was asked for")


def check_request(content: Any) -> EmbeddingsRequest:
    """Check the decoded JSON of a request body.

    Raises:
        InvalidRequest: its shape, a field or a value is not what the contract allows.
    """
    for name in content if isinstance(content, dict) else ():
        check_field(name)
    try:
        request = EmbeddingsRequest.model_validate(content)
    except ValidationError as error:
        raise explain(error) from None
    if request.tokens and request.input_type == "image":
        raise InvalidRequest("tokens: only texts have them; ask for images without tokens")
    if request.tokens and request.pool_factor > 1:
        raise InvalidRequest(
            "tokens: pooled vectors have none of their own; ask without tokens or without "
            "pool_factor"
        )
    return request


def check_field(name: str) -> None:
    """Check the name of a field.

    Raises:
        InvalidRequest: there is no such field. Pydantic would list all unknown ones: gigabytes of
            errors for one hostile body.
    """
    known = EmbeddingsRequest.model_fields
    if name not in known:
        raise InvalidRequest(f"unknown field {name[:40]!r}; known fields: {', '.join(known)}")


def explain(error: ValidationError) -> InvalidRequest:
    """Return the first fault that pydantic found, with its place."""
    fault: Any = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "body"
    index = next((part for part in fault["loc"] if isinstance(part, int)), None)
    return InvalidRequest(f"{place}: {fault['msg']}", index=index)

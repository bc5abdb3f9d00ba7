"""Every error that a caller can see, declared once: its code, its HTTP status, its sentence.

The form on the wire is ``{"error": sentence, "code": word, "index": n}``; ``index`` is there only
where one input is to blame.
"""

from typing import ClassVar

from pagevec.secrets import mask_secrets


class PagevecError(Exception):
    """Base of all errors of pagevec.

    Attributes:
        code: a word that programs can match.
        status: the HTTP status that carries it.
        message: a sentence that names what is at fault and what to do about it. Secrets in it are
            masked, whatever it cites.
        index: the position of the input at fault, where there is one.
        retry_after: seconds after which another try makes sense, where it does.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, index: int | None = None, retry_after: float | None = None
    ) -> None:
        self.message = mask_secrets(message)
        super().__init__(self.message)
        self.index = index
        self.retry_after = retry_after

    def at(self, index: int) -> "PagevecError":
        """Return the same error, blaming the input at `index`."""
        return type(self)(self.message, index=index, retry_after=self.retry_after)

    def adding(self, note: str) -> "PagevecError":
        """Return the same error, with `note` in brackets behind its message."""
        message = f"{self.message} ({note})"
        noted = type(self)(message, index=self.index, retry_after=self.retry_after)
        noted.__cause__ = self.__cause__
        return noted


class ConfigurationError(PagevecError):
    """A setting is wrong: the start stops here."""

    code = "configuration_error"


class CheckpointError(PagevecError):
    """A model's files are missing, of an unknown family, or did not load completely."""

    code = "checkpoint_error"


class LoadedElsewhere(PagevecError):
    """A model that one process has loaded is asked by another: load it where it is used."""

    code = "loaded_elsewhere"


class InvalidJSON(PagevecError):
    """The body is not JSON."""

    code, status = "invalid_json", 400


class InvalidRequest(PagevecError):
    """The body has the wrong shape, an unknown field or a value that is not allowed."""

    code, status = "invalid_request", 400


class InvalidImage(PagevecError):
    """An input is not an image that can be read completely."""

    code, status = "invalid_image", 400


class ImageTooLarge(PagevecError):
    """An image is over the limit on bytes, pixels or side length."""

    code, status = "image_too_large", 400


class InvalidText(PagevecError):
    """A text cannot be tokenized as this model needs it."""

    code, status = "invalid_text", 400


class TextTooLong(PagevecError):
    """A text is over the limit; it is never cut."""

    code, status = "text_too_long", 400


class Unauthorized(PagevecError):
    """The key is missing or wrong."""

    code, status = "unauthorized", 401


class Forbidden(PagevecError):
    """The key is valid, but this service does not do what is asked."""

    code, status = "forbidden", 403


class NotFound(PagevecError):
    """There is nothing at this path."""

    code, status = "not_found", 404


class ModelNotFound(PagevecError):
    """The request names a model that this service does not serve; GET /v1/models lists them."""

    code, status = "model_not_found", 404


class MethodNotAllowed(PagevecError):
    """The path exists, the method does not."""

    code, status = "method_not_allowed", 405


class RequestTimeout(PagevecError):
    """The header or the body of a request did not come in time."""

    code, status = "request_timeout", 408


class UnsupportedEncoding(PagevecError):
    """The body has a Content-Encoding that is not read here."""

    code, status = "unsupported_encoding", 415


class HeadersTooLarge(PagevecError):
    """The header fields of a request are too many or too long."""

    code, status = "headers_too_large", 431


class BodyTooLarge(PagevecError):
    """The body is over the limit: send fewer inputs in one request."""

    code, status = "body_too_large", 413


class TooManyInputs(PagevecError):
    """More inputs than one request may carry."""

    code, status = "too_many_inputs", 413


class TooMuchWork(PagevecError):
    """At the measured speed the request cannot be done within its time budget."""

    code, status = "too_much_work", 413


class OutOfMemory(PagevecError):
    """One input alone does not fit into the device's memory."""

    code, status = "out_of_memory", 413


class RateLimited(PagevecError):
    """This key has sent too much in too short a time."""

    code, status = "rate_limited", 429


class NotReady(PagevecError):
    """The model is still being loaded."""

    code, status = "not_ready", 503


class EngineFailed(PagevecError):
    """The model failed for good; this process answers no more requests."""

    code, status = "engine_failed", 503


class Draining(PagevecError):
    """The service is shutting down: it finishes what it has and takes nothing new."""

    code, status = "draining", 503


class QueueFull(PagevecError):
    """Too much work is waiting already."""

    code, status = "queue_full", 503


class TooManyConnections(PagevecError):
    """As many connections are busy as this process can have."""

    code, status = "too_many_connections", 503


class StorageFull(PagevecError):
    """There is no room for another upload: remove documents."""

    code, status = "storage_full", 507


class InternalError(PagevecError):
    """An internal error; the log has its cause beside the request's id."""


class DocumentError(PagevecError):
    """A document, or one page of it, cannot be read; the message names it."""

    code = "document_error"


class ObjectError(PagevecError):
    """An object of a remote filesystem cannot be listed or fetched."""

    code = "object_error"


class StoreError(PagevecError):
    """A store of pages cannot be opened, read or written, or holds something else."""

    code, status = "store_error", 503


class NoStore(StoreError):
    """There is no store where one is looked for."""


class OtherModel(StoreError):
    """The pages of a store were embedded by another model than the one in use."""

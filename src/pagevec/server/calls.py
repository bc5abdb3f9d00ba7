"""A body -> what the engine is asked: parsed, limits checked, images' headers read."""

from collections.abc import Sequence
from dataclasses import dataclass

from pagevec.errors import PagevecError, TextTooLong, TooManyInputs
from pagevec.images import EncodedImage, ImageLimits, read_base64_image
from pagevec.settings import Settings
from pagevec.wire.schema import EmbeddingsRequest, parse_request


@dataclass(frozen=True, eq=False)
class Call:
    """A valid request."""

    request: EmbeddingsRequest
    inputs: Sequence[str] | Sequence[EncodedImage]


@dataclass(frozen=True)
class CallReader:
    """Reads bodies within the limits of the settings."""

    max_inputs: int
    max_text_chars: int
    images: ImageLimits

    @classmethod
    def of(cls, settings: Settings) -> "CallReader":
        """Return a reader with the limits of `settings`."""
        images = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            max_side=settings.max_image_side,
        )
        return cls(settings.max_inputs, settings.max_text_chars, images)

    def read(self, body: bytearray) -> Call:
        """Read `body`, which is emptied.

        Raises:
            InvalidJSON, InvalidRequest, TooManyInputs, TextTooLong, InvalidImage, ImageTooLarge.
        """
        request = parse_request(body)
        body.clear()  # the inputs are copies: free a large body before they are decoded
        if len(request.inputs) > self.max_inputs:
            raise TooManyInputs(
                f"{len(request.inputs)} inputs, the limit is {self.max_inputs}: send fewer"
            )
        if request.input_type == "text":
            return Call(request, self._texts(request.inputs))
        return Call(request, [self._image(i, text) for i, text in enumerate(request.inputs)])

    def _texts(self, texts: list[str]) -> list[str]:
        for index, text in enumerate(texts):
            if len(text) > self.max_text_chars:
                raise TextTooLong(
                    f"the text has {len(text)} characters, the limit is {self.max_text_chars}: "
                    "split it",
                    index=index,
                )
        return texts

    def _image(self, index: int, text: str) -> EncodedImage:
        try:
            return read_base64_image(text, self.images)
        except PagevecError as error:
            raise error.at(index) from None

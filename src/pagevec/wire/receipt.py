"""Ties each answer to its request, so that no caller takes another one's vectors for its own.

A request may carry a random token. The answer repeats it, with a digest of what was answered: how
many inputs, of which kind. On a connection that two processes share, or behind a proxy that mixes
answers up, the two would differ.
"""

import hashlib
import re
import secrets

from pagevec.types import InputType

REQUEST_HEADER = "Pagevec-Request"
ANSWER_HEADER = "Pagevec-Answer"

_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST_CHARS = 16


def make_token() -> str:
    """Return a token that no other request has."""
    return secrets.token_urlsafe(16)


def receipt(token: str, input_type: InputType, count: int) -> str:
    """Return the receipt for `count` inputs of one kind: `<token> <digest>`."""
    digest = hashlib.sha256(f"{input_type} {count}".encode()).hexdigest()
    return f"{token} {digest[:_DIGEST_CHARS]}"


def receipt_headers(token: str | None, input_type: InputType, count: int) -> dict[str, str]:
    """Return what an answer's headers say of its request.

    Args:
        token: the request's `Pagevec-Request`; one that is no token is not repeated.
        input_type: what was embedded.
        count: how many inputs the answer is for.
    """
    if token is None or not _TOKEN.fullmatch(token):
        return {}
    return {ANSWER_HEADER: receipt(token, input_type, count)}

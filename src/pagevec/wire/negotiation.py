"""Which of the two formats an answer has: an explicit Accept wins, else the path decides."""

from collections.abc import Mapping
from typing import Literal, TypeVar

WireFormat = Literal["json", "npz"]
"""The formats of an answer."""

MEDIA_TYPES: dict[WireFormat, str] = {"json": "application/json", "npz": "application/x-npz"}

_ACCEPTED: dict[str, WireFormat] = {
    "application/json": "json",
    "application/x-npz": "npz",
    "application/octet-stream": "npz",
}

_Choice = TypeVar("_Choice")


def choose_format(accept: str | None, default: WireFormat) -> WireFormat:
    """Return the format that `accept` prefers, or `default`; see `choose`."""
    return choose(accept, _ACCEPTED, default)


def choose(accept: str | None, known: Mapping[str, _Choice], default: _Choice) -> _Choice:
    """Return which of `known`, by media type, `accept` (RFC 9110, 12.5.1) prefers, or `default`.

    Wildcards, unknown types and unreadable weights leave the choice to `default`: a client that
    cannot say what it wants gets an answer rather than a refusal.
    """
    best, best_weight = default, 0.0
    for offer in (accept or "").split(","):
        media_type, _, parameters = offer.partition(";")
        weight = _weight(parameters)
        wanted = known.get(media_type.strip().lower())
        if wanted is not None and weight > best_weight:
            best, best_weight = wanted, weight
    return best


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0

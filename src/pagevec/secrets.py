"""Keys as they are given, and masks for secrets in texts that people and logs get to see."""

import os
import re
from typing import Any

MASK = "***"

_URL = re.compile(
    r"""(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}://)
    (?: # user:password@, up to the last @: not all escape their characters as a URL needs it.
        # A number after the colon is a port, and an @ behind it belongs to the path.
        (?P<user>[^\s/?\#:@"'<>\[]{0,999}) : (?!\d*[/?\#]) [^\s"'<>]{0,999} @
      | [^\s/?\#:@"'<>]{1,999} @  # token@
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# `password=...` in a URL's query or in libpq's list of options, where it may be quoted.
_OPTION = re.compile(
    r"""(?P<name>\b(?:\w{1,40}[_-]|ssl)?(?:passw(?:or)?d|pwd|token|api[_-]?key|secret))
    (?P<equals>\s*=\s*) (?: '(?:[^'\\]|\\.)*' | [^\s&'"]+ )""",
    re.IGNORECASE | re.VERBOSE,
)
_BEARER = re.compile(r"(\bBearer\s+)(?![<$])[^\s'\"`]+", re.IGNORECASE)
_OF_SECRETS = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|CONNECTION_STRING|SAS")
_MIN_SECRET = 8  # characters of a variable's value; a shorter one may be an innocent word
_MIN_PIECE = 3  # characters; a shorter one would be found in innocent words
_BETWEEN_KEYS = re.compile(r"[,\r\n]")


def split_keys(text: str) -> tuple[str, ...]:
    """Return the bearer keys in `text`, where commas or line ends separate them."""
    return tuple(filter(None, map(str.strip, _BETWEEN_KEYS.split(text))))


def first_key(text: str | None) -> str | None:
    """Return the bearer key to send, of a setting that may hold several.

    A service accepts each of its keys while they are rotated; a caller sends one.

    Args:
        text: keys, separated by commas or line ends.

    Returns:
        The first of them; None where there is none.
    """
    return next(iter(split_keys(text or "")), None)


def fault_of_key(key: Any) -> str | None:
    """Return why `key` cannot be sent as a bearer key, without showing it; None where it can."""
    if not isinstance(key, str):
        return f"it is no text but of the type {type(key).__name__}"
    if "," in key or len(split_keys(key)) > 1:
        return "it holds several keys, separated by commas or line ends: give one of them"
    if key != key.strip():
        return "it begins or ends with a space or a line end: give it without, as .strip() does"
    if not key.isascii():
        return "it has characters that are not ASCII, which an HTTP header cannot carry"
    if not key.isprintable() or " " in key:
        return "it has spaces or control characters, which an HTTP header cannot carry"
    return None


def mask_url(text: str) -> str:
    """Return `text` with the passwords in URLs masked, and tokens in the place of a user."""
    return _URL.sub(_mask_match, text)


def mask_secrets(text: str) -> str:
    """Return `text` without passwords in URLs, passwords given as options, and bearer keys."""
    masked = _OPTION.sub(rf"\g<name>\g<equals>{MASK}", mask_url(text))
    return _BEARER.sub(rf"\g<1>{MASK}", masked)


def mask_environment(text: str) -> str:
    """Return `text` without the values of variables that have the name of a secret.

    Libraries that find credentials in the environment may cite them.
    """
    values = {
        value
        for name, value in os.environ.items()
        if _OF_SECRETS.search(name.upper()) and len(value) >= _MIN_SECRET
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def mask_key(text: str, key: str) -> str:
    """Return `text` without `key`, a bearer key or the whole header that carries it.

    Whoever answers a request may repeat what was sent.
    """
    secret = key.rpartition(" ")[2]
    return text.replace(secret, MASK) if len(secret) >= _MIN_PIECE else text


def mask_pieces(text: str, url: str) -> str:
    """Return `text`, an error about `url`, without any piece of the password in `url`.

    Libraries cite what they took for the host or the port, which is a part of the password where
    its characters are not escaped.
    """
    found = re.search(r"://(.*)@", url, re.DOTALL)
    if found is None:
        return mask_secrets(text)
    password = found[1].partition(":")[2] or found[1]
    pieces = sorted(filter(None, re.split(r"[:/?#@\s]+", password)), key=len, reverse=True)
    piece = f"(?:{'|'.join(map(re.escape, pieces))})"
    # Quoted, or before an @, it is no innocent word, however short it is.
    cited = rf"""(?P<quote>['"]){piece}(?=(?P=quote))|{piece}(?=@)"""
    longer = rf"{piece}(?:[:/?\#@\s]+{piece})*"
    text = re.sub(longer, lambda found: MASK if len(found[0]) >= _MIN_PIECE else found[0], text)
    return mask_secrets(re.sub(cited, lambda found: f"{found['quote'] or ''}{MASK}", text))


def _mask_match(found: "re.Match[str]") -> str:
    scheme, user = found["scheme"], found["user"]
    if user is not None:
        return f"{scheme}{user}:{MASK}@"
    # Alone, it is a token where web services take one, and elsewhere a name.
    is_token = scheme.lower().startswith(("http", "qdrant"))
    return f"{scheme}{MASK}@" if is_token else found[0]

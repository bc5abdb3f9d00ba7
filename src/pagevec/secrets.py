"""Masks secrets in texts that people and logs get to see: the one place that does."""

import re

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
_MIN_PIECE = 3  # characters; a shorter one would be found in innocent words


def first_key(keys: str | None) -> str | None:
    """Return the first of several keys, separated by commas or line ends; None if there is none."""
    found = (key.strip() for key in (keys or "").replace("\n", ",").split(","))
    return next(filter(None, found), None)


def mask_url(text: str) -> str:
    """Return `text` with the passwords in URLs masked, and over HTTP tokens in a user's place."""
    return _URL.sub(_mask_match, text)


def mask_secrets(text: str) -> str:
    """Return `text` without passwords in URLs, passwords given as options, and bearer keys."""
    masked = _OPTION.sub(rf"\g<name>\g<equals>{MASK}", mask_url(text))
    return _BEARER.sub(rf"\g<1>{MASK}", masked)


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
    return f"{scheme}{MASK}@" if scheme.lower().startswith("http") else found[0]

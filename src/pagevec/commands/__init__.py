"""The commands of `pagevec`, one module each."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def show_on_one_line(text: str) -> str:
    """Return `text` with control characters escaped: file names may have line ends in them."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)

"""Names of uploads, made of whatever a sender can write into a header."""

import unicodedata
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from pagevec.errors import InvalidRequest
from pagevec.ingest.filenames import clean_filename
from pagevec.wire.documents import id_of, name_of

_PIECES = ("..", ".", "/", "\\", "C:", " ", "\0", "\u202e", "\u061c", "\u2028", "e\u0301", "\ud800")
_NAMES = st.lists(st.sampled_from(_PIECES) | st.text(max_size=130), max_size=12).map("".join)


@settings(max_examples=400, derandomize=True, database=None, deadline=None)
@given(_NAMES, st.sampled_from([".txt", ".PDF", ".docx"]))
def test_any_name(given: str, suffix: str) -> None:
    """What is kept of a name leads nowhere, can be shown, has an id, and is cleaned already."""
    with suppress(InvalidRequest):
        kept = clean_filename(given + suffix)
        assert kept.lower().endswith(suffix.lower()) and len(kept) <= 240
        assert not {"", ".", ".."} & set(kept.split("/"))
        assert not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in kept)
        assert not set("\\\u202e\u2066\u061c") & set(kept)
        assert name_of(id_of(f"uploads/{kept}")) == f"uploads/{kept}"
        assert clean_filename(kept) == kept

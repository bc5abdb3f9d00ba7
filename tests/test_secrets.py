"""Passwords in addresses never reach what people read."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagevec.errors import StoreError
from pagevec.secrets import mask_secrets

_WORD = st.text("abcXYZ019-_.~!$&*+,;=:%@/", min_size=6).map(lambda word: f"s3cr{word}")


@given(
    st.sampled_from(["http", "https", "redis", "rediss", "postgresql", "postgres+ssl", "HTTPS"]),
    st.sampled_from(["", "user", "user%40company"]),
    _WORD,
)
def test_no_password_is_left(scheme: str, user: str, password: str) -> None:
    """Whatever characters it has, escaped or not, a password in a URL is masked; the rest stays."""
    masked = mask_secrets(f"cannot reach '{scheme}://{user}:{password}@host:6379/0?a=b' (refused)")
    assert masked == f"cannot reach '{scheme}://{user}:***@host:6379/0?a=b' (refused)"
    assert mask_secrets(masked) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://t0ken@host/path", "https://***@host/path"),
        ("postgresql://reader@host/db", "postgresql://reader@host/db"),
        ("qdrant+https://t0ken@host/pages", "qdrant+https://***@host/pages"),
        ("postgresql://host/db?user=a&password=word", "postgresql://host/db?user=a&password=***"),
        ("http://host/?api_key=word&top", "http://host/?api_key=***&top"),
        ("https://a:b@one, https://c:d@two", "https://a:***@one, https://c:***@two"),
        ("http://127.0.0.1:8765/pages/@me", "http://127.0.0.1:8765/pages/@me"),
        ("write to someone@example.org", "write to someone@example.org"),
        ("http://[::1]:8765/x", "http://[::1]:8765/x"),
    ],
)
def test_only_secrets_are_masked(text: str, masked: str) -> None:
    """Tokens and parameters are masked, names and addresses without a secret are not."""
    assert mask_secrets(text) == masked


def test_errors_mask() -> None:
    """Every error of pagevec does it by itself."""
    error = StoreError("cannot open postgresql://user:word@host/db")
    assert "word" not in error.message + str(error) + repr(error) + str(error.at(1))


@pytest.mark.parametrize("part", ["a.", "a://", "a://b:", "?", "?token", "@", "http://u:p@"])
def test_long_texts_take_no_time(part: str) -> None:
    """A stranger's text of a megabyte is masked within seconds, whatever it repeats."""
    started = time.perf_counter()
    mask_secrets(part * (1_000_000 // len(part)))
    assert time.perf_counter() - started < 10

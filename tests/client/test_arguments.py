"""What the clients say of their arguments: in help, and of those that they cannot use."""

import inspect
import math
import pydoc
import re
from typing import Any, get_args

import httpx
import numpy as np
import pytest

from client.faulty import Faulty, slow
from pagevec.client import AsyncClient, Client
from pagevec.client.faults import TimedOut
from pagevec.errors import ConfigurationError, InvalidRequest
from pagevec.wire.quantize import Dtype

BOTH = pytest.mark.parametrize("kind", [Client, AsyncClient])


@BOTH
def test_help_documents_every_argument(kind: type) -> None:
    """`help(Client)` and `inspect.signature` show each argument; the docstring says what it is."""
    arguments = list(inspect.signature(kind).parameters)
    assert arguments[:2] == ["url", "key"]
    text = pydoc.render_doc(kind, renderer=pydoc.plaintext)
    (signature,) = re.findall(rf"^ \|  {kind.__name__}\(.*$", text, re.M)
    for name in arguments:
        assert re.search(rf"^ \|\s+{name}: .{{10}}", text, re.M), name
        assert f"{name}: " in signature


@pytest.mark.parametrize(
    "timeout", [0.2, np.float64(0.2), httpx.Timeout(0.2), httpx.Timeout(5.0, read=0.2)]
)
def test_timeout_in_seconds(either_client: Any, faulty: Faulty, timeout: Any) -> None:
    """A number of seconds does what the same `httpx.Timeout` does."""
    faulty.always = slow(1.0)
    with pytest.raises(TimedOut):
        either_client(faulty.url, timeout=timeout, attempts=1).embed_texts(["1"])


@pytest.mark.parametrize("timeout", [None, math.inf, 5, httpx.Timeout(None)])
def test_timeout_that_is_not_reached(either_client: Any, faulty: Faulty, timeout: Any) -> None:
    """None and infinity wait for as long as it takes."""
    faulty.always = slow(0.3)
    assert len(either_client(faulty.url, timeout=timeout).embed_texts(["1"])) == 1


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", value) for value in ("5", 0, -1.0, math.nan, [5])),
        *(("max_inputs", value) for value in ("3", 1.5, None)),
        *(("patience", value) for value in ("3", -1, math.nan, None)),
        ("set_aside_seconds", -1),
        *(("dtype", value) for value in ("float64", np.float16, None, ["float16"])),
    ],
)
def test_arguments_that_cannot_be_used(kind: type, name: str, value: Any) -> None:
    """The error names the argument, its value and what is expected."""
    with pytest.raises(ConfigurationError, match="expected") as raised:
        kind("http://a", **{name: value})
    assert raised.value.message.startswith(f"{name}={value!r}: ")


@BOTH
@pytest.mark.parametrize("url", [None, 8765, [None], httpx.URL("http://a"), [], "localhost:8765"])
def test_what_is_no_address(kind: type, url: Any) -> None:
    """A variable that is not set, or an address without its scheme, is an error about the URL."""
    with pytest.raises(ConfigurationError, match=r"service('s)? URL"):
        kind(url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("dtype", value) for value in ("float64", np.float16, np.dtype("float16"), 8)),
        *(("pool_factor", value) for value in (0, "2", 1.5, None)),
    ],
)
def test_options_of_a_call(either_client: Any, faulty: Faulty, name: str, value: Any) -> None:
    """Those of a call too; nothing is sent."""
    with pytest.raises(InvalidRequest, match="expected") as raised:
        either_client(faulty.url).embed_texts(["1"], **{name: value})
    assert raised.value.message.startswith(f"{name}={value!r}: ")
    if name == "dtype":
        assert all(repr(known) in raised.value.message for known in get_args(Dtype))
    assert faulty.asked == []


def test_numbers_of_numpy(either_client: Any, faulty: Faulty) -> None:
    """Whole numbers of numpy are numbers."""
    client = either_client(faulty.url, max_inputs=np.int64(2))
    assert len(client.embed_texts(["1", "2", "3"], pool_factor=np.int64(2))) == 3
    assert [one.options["pool_factor"] for one in faulty.posts] == [2, 2]

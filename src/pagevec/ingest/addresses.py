"""Addresses of documents in object stores, such as `s3://bucket/reports`, and which are refused."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self

from pagevec.errors import InvalidRequest
from pagevec.secrets import mask_url

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)  # C:// is a drive of Windows
_OF_FILES = frozenset({"file", "local", "asynclocal"})
_OF_THE_WEB = frozenset({"http", "https"})


def is_address(text: str) -> bool:
    """Whether `text` is an address, such as `s3://bucket/reports`, and no path."""
    return _ADDRESS.match(text) is not None


@dataclass(frozen=True, order=True)
class Address:
    """Where documents are in a filesystem that fsspec knows. `parse` makes one.

    Attributes:
        text: such as `s3://bucket/reports`, without a slash at its end.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that a user has given.

        Raises:
            InvalidRequest: it has no scheme or no place, names a file of this machine or a page of
                the web, is made of several addresses, or holds a password.
        """
        found = _ADDRESS.match(text)
        if found is None:
            raise InvalidRequest(f"{text}: expected an address such as s3://bucket/reports")
        scheme, place = found[1].lower(), text[found.end() :].rstrip("/")
        if scheme in _OF_FILES:
            raise InvalidRequest(f"{text}: give the path of a file itself: {place or '/'}")
        if scheme in _OF_THE_WEB:
            raise InvalidRequest(
                f"{text}: documents are not read from the web, where nothing lists them and a "
                "redirection may lead anywhere: fetch the file, then ingest it"
            )
        if "::" in place:
            raise InvalidRequest(f"{text}: addresses inside others are not read here")
        if mask_url(text) != text:
            raise InvalidRequest(
                f"{text}: the store would remember the password in this address; give it in the "
                "environment, as the filesystem has it there"
            )
        if not place or not place.isprintable():
            raise InvalidRequest(f"{text!r}: expected an address such as s3://bucket/reports")
        return cls(f"{scheme}://{place}")

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, below: PurePath | str) -> "Address":
        return Address(f"{self.text}/{below}")

    @property
    def name(self) -> str:
        """The last part of it."""
        return re.split(r"//|/", self.text)[-1]

    @property
    def parent(self) -> "Address":
        """What it is in; itself where there is nothing above."""
        above, _, _ = self.text.rpartition("/")
        return self if above.endswith("/") else Address(above)

    def below(self, root: "Address") -> str | None:
        """Return its path below `root`; None where it is not below it."""
        place, start = self.text, f"{root.text}/"
        return place.removeprefix(start) if place.startswith(start) else None

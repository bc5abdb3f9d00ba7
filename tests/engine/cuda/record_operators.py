"""Record the signatures of the operators that CUDA is asked for, from the wheels of torch.

    python tests/engine/cuda/record_operators.py    # after a change of what the passes call

Each wheel carries `native_functions.yaml`, from which PyTorch's operators are made; only that file
is fetched. What is recorded is in `operators.json`, with the address of the wheel.
"""

import io
import json
import re
import sys
import urllib.request
import zipfile
from pathlib import Path

VERSIONS = ("2.10.0", "2.11.0", "2.12.0", "2.13.0")
RECORDED = Path(__file__).with_name("operators.json")
_INDEX = "https://pypi.org/simple/torch/"
_WHEEL = "torch-{}-cp311-cp311-manylinux_2_28_x86_64.whl"
_FILE = "torchgen/packaged/ATen/native/native_functions.yaml"
_BLOCK = 1 << 20


class RemoteFile(io.RawIOBase):
    """A file behind an address, of which only the parts that are read are fetched."""

    def __init__(self, address: str) -> None:
        self._address, self._position = address, 0
        with self._ask(0, 0) as answer:
            self._size = int(answer.headers["Content-Range"].partition("/")[2])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._size - self._position)
        if count <= 0:
            return 0
        with self._ask(self._position, self._position + count - 1) as answer:
            content = answer.read()
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _ask(self, first: int, last: int):  # noqa: ANN202 - of urllib
        headers = {"Range": f"bytes={first}-{last}"}
        request = urllib.request.Request(self._address, headers=headers)
        return urllib.request.urlopen(request, timeout=60)


def find_wheel(version: str, index: str) -> str:
    """Return the address of a wheel of torch."""
    links: list[str] = re.findall(r'href="([^"#]+)', index)
    wheel = next(link for link in links if link.endswith("/" + _WHEEL.format(version)))
    return urllib.parse.urljoin(_INDEX, wheel)


def read_signatures(address: str, names: set[str]) -> dict[str, str]:
    """Return the signature of each operator of `names` that this wheel has."""
    file = io.BufferedReader(RemoteFile(address), _BLOCK)
    text = zipfile.ZipFile(file).read(_FILE).decode()
    found = re.findall(r"^- func: ([\w.]+)(\(.*)$", text, re.MULTILINE)
    return {name: f"aten::{name}{rest}" for name, rest in found if name in names}


def main() -> None:
    names = set(json.loads(RECORDED.read_text())["operators"])
    names |= set(sys.argv[1:])
    with urllib.request.urlopen(_INDEX, timeout=60) as answer:
        index = answer.read().decode()
    record: dict[str, object] = {"operators": sorted(names)}
    for version in VERSIONS:
        address = find_wheel(version, index)
        signatures = read_signatures(address, names)
        record[version] = {"source": f"{address}, {_FILE}", "signatures": signatures}
    RECORDED.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

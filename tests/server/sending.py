"""Many requests, sent through kept connections, and their answers checked."""

import http.client
import json
from collections import Counter
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

DOCUMENTED = frozenset({200, 400, 401, 404, 405, 408, 413, 415, 429, 431, 503})
THREADS = 6


@dataclass(frozen=True)
class Request:
    """A request, and the statuses that it may be answered with."""

    method: str
    path: str
    key: str
    body: bytes
    kind: str = ""
    documented: Set[int] = DOCUMENTED


def send(port: int, requests: list[Request]) -> Counter[int]:
    """Send `requests` through kept connections, several at a time; count the statuses.

    Every answer has the form that its status promises.
    """

    def send_some(some: list[Request]) -> Counter[int]:
        seen: Counter[int] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for one in some:
            headers = {"Authorization": f"Bearer {one.key}"}
            if one.kind:
                headers["Content-Type"] = one.kind
            connection.request(one.method, one.path, one.body, headers)
            answer = connection.getresponse()
            content = answer.read()
            seen[answer.status] += 1
            assert answer.getheader("x-request-id")
            if answer.status >= 400:
                assert {"error", "code"} <= set(json.loads(content)), (one, content)
            assert answer.status in one.documented, (one, answer.status, content)
        connection.close()
        return seen

    with ThreadPoolExecutor(THREADS) as threads:
        shares = [requests[start::THREADS] for start in range(THREADS)]
        return sum(threads.map(send_some, shares), Counter())

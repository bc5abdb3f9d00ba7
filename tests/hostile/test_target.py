"""The harness of the hostile tests itself, on a service that nobody attacks."""

from pathlib import Path

import pytest

from hostile.target import attacked
from processes import MIB

pytestmark = [pytest.mark.long, pytest.mark.alone]


def test_a_service_at_rest_is_alive(tmp_path: Path) -> None:
    """Without an attack every condition holds, so that one that fails later is the attack's."""
    with attacked(tmp_path) as target:
        for _ in range(5):
            assert target.time_query() < 5
        target.check_alive(budget=512 * MIB)

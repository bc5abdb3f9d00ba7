"""`pagevec cost`: dollars, from the price table and measured throughput."""

import pytest

from conftest import pagevec
from pagevec.deploy.modal.prices import AS_OF, SOURCE


def rows(*arguments: str) -> dict[str, list[str]]:
    done = pagevec("cost", *arguments)
    assert done.returncode == 0, done.stderr
    assert AS_OF in done.stdout
    assert SOURCE in done.stdout
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if "." in line}


def test_dollars_of_pages_and_of_waiting() -> None:
    """1,000 pages at 4 pages/s are 250 s of an A10G, two cores and 16 GiB; a tail is 300 s."""
    each = 0.000306 + 2 * 0.0000131 + 16 * 0.00000222
    hour, speed, pages, tail = rows("--pages-per-second", "A10G=4")["A10G"]
    assert float(hour) == pytest.approx(3600 * each, abs=0.001)
    assert speed == "4.0"
    assert float(pages) == pytest.approx(250 * each, abs=0.0001)
    assert float(tail) == pytest.approx(300 * each, abs=0.0001)


def test_what_was_not_measured_is_not_made_up() -> None:
    """GPUs without a measurement have a price for idle time and none for pages."""
    table = rows("--pages-per-second", "A10G=4", "--idle-seconds", "60")
    assert table["H100"][1:3] == ["-", "-"]
    assert float(table["H100"][3]) == pytest.approx(60 * (0.001097 + 0.0000617), abs=0.0001)


@pytest.mark.parametrize("speed", ["0", "fast", "A10G=-1", "V100=3", "inf"])
def test_no_speed(speed: str) -> None:
    """A speed that is none, or of no GPU in the table, is refused with a sentence."""
    done = pagevec("cost", "--pages-per-second", speed)
    assert done.returncode == 2
    assert "Error" in done.stderr

"""axe-core finds no serious fault in the page's four states, wide and narrow, light and dark."""

import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from page.conftest import WIDTHS, Site, watched

AXE = "axe-core@4.14.1"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of axe-core, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm, which fetches axe-core")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run([npm, "install", "--prefix", folder, AXE], check=True, capture_output=True)
    return folder / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_serious_fault(
    site: Site, browser: Browser, axe: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    """Sign-in, first start, results and viewer: nothing serious or critical, nothing sideways."""
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]},
        color_scheme=scheme,
        bypass_csp=True,  # axe-core comes in as a script
        reduced_motion="reduce",
    )
    visit = watched(context)
    page = visit.page
    page.goto(site.url)
    page.wait_for_selector("#sign-in")
    found = {"sign-in": audit(page, axe)}
    visit.sign_in(site)
    page.wait_for_selector("#examples button")
    found["first start"] = audit(page, axe)
    visit.ask("parcels and punctuality")
    page.wait_for_selector("#results img")
    found["results"] = audit(page, axe)
    page.click("#results [data-rank='1']")
    page.wait_for_selector("#viewer img")
    found["viewer"] = audit(page, axe)
    context.close()
    assert found == {state: [] for state in found}


def audit(page: Page, axe: Path) -> list[str]:
    """Return serious and critical faults, and whether the page can be scrolled sideways."""
    page.add_script_tag(path=axe)
    violations = page.evaluate("axe.run().then(found => found.violations)")
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    serious = [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
    return [*serious, *(["it is wider than the window"] if wide else [])]

"""A real browser on the page of a real service: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from conftest import EXAMPLES
from processes import Process, environment, serving

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WIDTHS = {1280: 800, 390: 844}


@dataclass(frozen=True)
class Site:
    """A service with a page, as `make serve` starts it."""

    process: Process
    state: Path

    @property
    def url(self) -> str:
        return f"{self.process.url}/"

    @property
    def key(self) -> str:
        return (self.state / "pagevec" / "key").read_text().strip()

    @property
    def address(self) -> str:
        """The printed address, whose token works once."""
        return self.process.output.read_text().split()[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.long)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="there is no browser: install chromium"))


# Playwright keeps an event loop running in this thread, beside which tests of other modules could
# run none of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # In a container, as root, Chromium has no sandbox of its own.
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "examples").symlink_to(EXAMPLES)
    variables = environment(XDG_STATE_HOME=str(folder / "state"), PAGEVEC_MAX_DOCUMENT_PAGES="40")
    del variables["SERVICE_API_KEY"]
    with serving(folder, variables, "--demo", "examples") as process:
        yield Site(process, folder / "state")


@dataclass(frozen=True)
class Visit:
    """A visit of the page; what must not happen there is in `faults`."""

    page: Page
    requested: list[str]
    faults: list[str]

    def sign_in(self, site: Site) -> None:
        self.page.goto(site.url)
        self.page.fill("#key", site.key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#documents li", state="attached")

    def ask(self, query: str) -> None:
        self.page.fill("#query", query)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#results [data-hit]")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 800})
    made.set_default_timeout(30_000)
    yield made
    made.close()


@pytest.fixture
def visit(context: BrowserContext) -> Iterator[Visit]:
    """A visit in which nothing fails that the test does not take out of `faults` itself."""
    made = watched(context)
    yield made
    assert made.faults == []


def watched(context: BrowserContext) -> Visit:
    page = context.new_page()
    requested, faults = list[str](), list[str]()
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: faults.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return Visit(page, requested, faults)

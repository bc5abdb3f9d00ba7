"""Take the pictures of the page that the documents show: `python docs/screenshots.py`.

It needs Playwright and a Chromium of the system, and serves the examples itself.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).parent
PICTURES = DOCS / "page"
QUERY = "parcels and punctuality"


def main() -> None:
    """Serve the examples and take the four states of the page."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "examples").symlink_to(DOCS.parent / "examples")
        serving = subprocess.Popen(
            [sys.executable, "-m", "pagevec", "serve", "--model", "bundled", "--demo", "examples"],
            cwd=folder,
            env={
                **os.environ,
                "PAGEVEC_PORT": "0",
                "XDG_STATE_HOME": folder,
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            said = iter(serving.stdout or ())
            address = next(line.split()[1] for line in said if line.startswith("page"))
            key = Path(folder, "pagevec", "key").read_text().strip()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                take(browser, address.partition("#")[0], key)
        finally:
            serving.terminate()
            serving.wait()


def take(browser: Browser, address: str, key: str) -> None:
    """Take all pictures: wide and light, but the viewer dark and the results on a phone, too."""
    page = open_page(browser, address, 1280, 800, "light")
    page.wait_for_selector("#sign-in")
    save(page, "sign-in")
    sign_in(page, key)
    page.wait_for_timeout(12_000)  # the examples are ingested
    save(page, "first-start")
    ask(page)
    save(page, "results")
    page.close()
    page = open_page(browser, address, 1280, 800, "dark")
    sign_in(page, key)
    ask(page)
    page.click("#words [data-word='punctuality']")
    page.click("#results [data-rank='1']")
    page.wait_for_selector("#viewer img")
    page.wait_for_timeout(1500)
    save(page, "viewer")
    page.close()
    page = open_page(browser, address, 390, 844, "light")
    sign_in(page, key)
    ask(page)
    save(page, "phone")


def open_page(
    browser: Browser, address: str, width: int, height: int, scheme: Literal["light", "dark"]
) -> Page:
    """Open the page in a window of this size."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(address)
    return page


def sign_in(page: Page, key: str) -> None:
    """Give the page the key."""
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#documents li", state="attached")


def ask(page: Page) -> None:
    """Ask, and wait for the pictures of the hits."""
    page.fill("#query", QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#results img")
    page.wait_for_timeout(2000)


def save(page: Page, name: str) -> None:
    """Save the window as a small file."""
    shot = Image.open(BytesIO(page.screenshot()))
    shot.convert("RGB").save(PICTURES / f"{name}.webp", quality=70, method=6)


if __name__ == "__main__":
    main()

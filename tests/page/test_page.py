"""The page in a real browser: from the printed address to the place of an answer, and back."""

import base64

from playwright.sync_api import BrowserContext, Page, expect

from page.conftest import Site, Visit, watched
from pdf_files import pages_pdf

HIGHEST = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", {willReadFrequently: true});
  context.drawImage(canvas, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  let best = 0, cell = 0;
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] > best) [best, cell] = [data[i], (i - 3) / 4];
  }
  return {best, row: Math.floor(cell / canvas.width) / canvas.height};
}"""
DROP = """async ({name, content}) => {
  const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(
      new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer}));
}"""


def drop(page: Page, name: str, content: bytes) -> None:
    page.evaluate(DROP, {"name": name, "content": base64.b64encode(content).decode()})


def test_from_drop_to_answer(site: Site, visit: Visit) -> None:
    """Sign-in, a dropped PDF of 20 pages, progress, a question, maps, the opened page, removal."""
    page = visit.page
    page.goto(site.address)
    expect(page.locator("#documents li")).to_have_count(3, timeout=60_000)
    assert page.url == site.url  # the token is gone from the address
    texts = [f"Chapter {number}" for number in range(1, 21)]
    texts[12] = "Lighthouse keeper"
    drop(page, "chapters.pdf", pages_pdf(texts, bad={}))
    row = page.locator("#documents li", has_text="chapters.pdf")
    expect(row).to_contain_text("of 20 pages", timeout=60_000)
    expect(row).to_have_attribute("data-state", "complete", timeout=60_000)

    visit.ask("lighthouse keeper")
    best = page.locator("#results [data-rank='1']")
    expect(best).to_contain_text("chapters.pdf")
    expect(best).to_contain_text("Page 13")
    expect(best.locator("img")).to_be_visible()
    expect(best.locator(".found-word")).to_have_text(["lighthouse", "keeper"])
    expect(page.locator("#words button")).to_have_text(["All words", "lighthouse", "keeper"])
    rows = {}
    for word in ("", "lighthouse", "keeper"):
        page.click(f"#words [data-word='{word}']")
        found = best.locator("canvas").evaluate(HIGHEST)
        assert found["best"] > 140, word  # 0.6 of 255, at the highest cell
        rows[word] = found["row"]
    assert all(0.3 < row < 0.7 for row in rows.values()), rows  # the words stand in the middle

    best.click()
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    expect(viewer).to_contain_text("Page 13")
    expect(viewer).to_contain_text("Lighthouse keeper")
    page.keyboard.press("ArrowRight")
    expect(viewer).not_to_contain_text("Page 13 ")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()

    row.hover()
    row.get_by_text("Remove", exact=True).click()
    row.get_by_text("Yes").click()
    expect(row).to_have_count(0)
    expect(page.locator("#documents li")).to_have_count(3)
    expect(page.locator("#results [data-rank='1']")).not_to_contain_text("chapters.pdf")


def test_the_key_stays_in_the_page(site: Site, visit: Visit) -> None:
    """It is in no storage, cookie, address or element; a reload asks for it again."""
    page = visit.page
    visit.sign_in(site)
    visit.ask("night route passengers")
    kept = page.evaluate(
        "[JSON.stringify({...localStorage, ...sessionStorage}), document.cookie, location.href, "
        "document.documentElement.outerHTML]"
    )
    assert site.key not in "".join(kept)
    assert kept[:2] == ["{}", ""]
    assert not any(site.key in url for url in visit.requested)
    page.reload()
    expect(page.locator("#sign-in")).to_be_visible()
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in-reason")).not_to_be_empty()
    assert all("401" in fault for fault in visit.faults), visit.faults
    visit.faults.clear()


def test_the_query_is_in_the_fragment(site: Site, visit: Visit) -> None:
    """An address can be shared; the service never sees the query in one, nor does its log."""
    page = visit.page
    visit.sign_in(site)
    visit.ask("night route passengers")
    assert page.url == f"{site.url}#q=night%20route%20passengers"
    visit.ask("total")
    page.go_back()
    expect(page.locator("#query")).to_have_value("night route passengers")
    assert not any("night" in url.partition("#")[0] for url in visit.requested)
    assert "night" not in site.process.log.read_text()


def test_a_filter_by_document(site: Site, visit: Visit) -> None:
    """A checked document is the only one that is searched."""
    visit.sign_in(site)
    visit.page.locator("#documents li", has_text="receipt.png").locator("input").check()
    visit.ask("total")
    expect(visit.page.locator("#results [data-hit]")).to_have_count(1)
    expect(visit.page.locator("#results")).to_contain_text("receipt.png")


def test_by_keyboard(site: Site, visit: Visit) -> None:
    """A question, a word's map, the opened page and the way back need no mouse."""
    page = visit.page
    visit.sign_in(site)
    page.focus("#query")
    page.keyboard.type("parcels and punctuality")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results [data-hit]")
    page.focus("#words [data-word='punctuality']")
    page.keyboard.press("Enter")
    expect(page.locator("#words [data-word='punctuality']")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.focus("#results [data-rank='1']")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.rank") == "1"


def test_nothing_comes_from_elsewhere(site: Site, visit: Visit) -> None:
    """All that the page loads is the service's own, and under 150 kB without pictures of pages."""
    sizes = dict[str, int]()
    visit.page.on(
        "response",
        lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", 0))}),
    )
    visit.sign_in(site)
    visit.ask("parcels and punctuality")
    visit.page.wait_for_selector("#results img")
    elsewhere = [url for url in visit.requested if not url.startswith((site.url, "blob:"))]
    assert elsewhere == []
    loaded = {url: size for url, size in sizes.items() if url == site.url or "/static/" in url}
    assert len(loaded) > 5
    assert sum(loaded.values()) < 150_000


def test_two_visitors(site: Site, context: BrowserContext) -> None:
    """The token of the printed address works once; the second visitor is asked for the key."""
    first, second = watched(context), watched(context)
    first.page.goto(site.address)  # used by an earlier test, or now
    second.page.goto(site.address)
    expect(second.page.locator("#sign-in")).to_be_visible()
    expect(second.page.locator("#sign-in-reason")).to_contain_text("has been used")

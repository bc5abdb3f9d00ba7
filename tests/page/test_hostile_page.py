"""What strangers send is shown as text, and explained; a script that gets in does not run."""

import zipfile
from io import BytesIO

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from page.conftest import Site, Visit
from page.test_page import drop
from pdf_files import one_page, pages_pdf, words

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def bomb() -> bytes:
    """A .docx of 300 KB that is 300 MB unpacked."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * (300 << 20))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.pdf", b"", "empty"),
        ("many.pdf", pages_pdf(["x"] * 41, bad={}), "the limit is 40"),
        ("bomb.docx", bomb(), "MB of text and tables unpacked"),
        ("broken.pdf", b"%PDF-1.7 nothing", "broken.pdf"),
        ("program.exe", b"MZ", "unsupported file type"),
    ],
)
def test_broken_documents_are_explained(
    site: Site, visit: Visit, name: str, content: bytes, said: str
) -> None:
    """Each says on the page what is wrong with it, and can be removed."""
    page = visit.page
    visit.sign_in(site)
    drop(page, name, content)
    if name == "program.exe":
        expect(page.locator("#uploads")).to_contain_text(said)
        assert all("400" in fault for fault in visit.faults), visit.faults
        visit.faults.clear()
        return
    row = page.locator("#documents li", has_text=name)
    expect(row).to_have_attribute("data-state", "failed", timeout=60_000)
    expect(row).to_contain_text(said)
    row.hover()
    row.get_by_text("Remove", exact=True).click()
    row.get_by_text("Yes").click()
    expect(row).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (f"{MARKUP}.txt", "onerror=alert(1)"),
        ("C:\\..\\..\\up.txt", "up.txt"),
        ("line\nbreak\x1b[31m.txt", "linebreak[31m.txt"),
        ("evil\u202etxt.exe.txt", "eviltxt.exe.txt"),
        ("n" * 300 + ".txt", "n" * 100),
    ],
)
def test_names_are_text(site: Site, visit: Visit, name: str, shown: str) -> None:
    """Whatever a file is called, its name is text, in the list and among the hits."""
    page = visit.page
    visit.sign_in(site)
    drop(page, name, f"The stowaway {MARKUP} of {shown}".encode())
    row = page.locator("#documents li", has_text=shown)
    expect(row).to_have_attribute("data-state", "complete", timeout=60_000)
    visit.ask(f"stowaway {shown}")
    best = page.locator("#results [data-hit]", has_text=shown).first
    expect(best).to_contain_text("<script>alert(2)</script>")
    assert_nothing_ran(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    row.hover()
    row.get_by_text("Remove", exact=True).click()
    row.get_by_text("Yes").click()
    expect(row).to_have_count(0)


def test_a_text_layer_is_text(site: Site, visit: Visit) -> None:
    """Markup in a PDF's text layer is shown as it is written, in the snippet and in the viewer."""
    page = visit.page
    visit.sign_in(site)
    line = words("<script>alert(3)</script> Kraken", size=20)
    drop(page, "layer.pdf", one_page(line))
    row = page.locator("#documents li", has_text="layer.pdf")
    expect(row).to_have_attribute("data-state", "complete", timeout=60_000)
    visit.ask("Kraken")
    page.locator("#results [data-hit]", has_text="layer.pdf").first.click()
    expect(page.locator("#viewer")).to_contain_text("<script>alert(3)</script> Kraken")
    assert_nothing_ran(page)


def assert_nothing_ran(page: Page) -> None:
    """Fail where a stranger's markup became elements; what ran is among the visit's faults."""
    assert page.locator("body script, [onerror], img[src='x']").count() == 0


def test_an_injected_script_is_blocked(site: Site, visit: Visit) -> None:
    """Inline scripts, handlers, scripts of other hosts and eval are refused by the policy."""
    page = visit.page
    visit.sign_in(site)
    blocked = page.evaluate(
        """async () => {
          const blocked = [];
          document.addEventListener("securitypolicyviolation",
            event => blocked.push(event.violatedDirective));
          const inline = document.createElement("script");
          inline.textContent = "window.ran = 'inline'";
          document.body.append(inline);
          const foreign = document.createElement("script");
          foreign.src = "https://example.org/x.js";
          document.body.append(foreign);
          const image = document.createElement("img");
          image.setAttribute("onerror", "window.ran = 'handler'");
          image.src = "blob:nothing";
          document.body.append(image);
          const sent = await fetch("https://example.org/").then(() => "sent", () => "refused");
          await new Promise(done => setTimeout(done, 300));
          return {blocked, sent, ran: window.ran ?? null};
        }"""
    )
    assert blocked["ran"] is None
    assert blocked["sent"] == "refused"
    directives = " ".join(blocked["blocked"])
    assert all(one in directives for one in ("script-src-elem", "script-src-attr", "connect-src"))
    visit.faults.clear()  # the browser reports what it blocked


def test_another_origin_gets_nothing(site: Site, context: BrowserContext) -> None:
    """A page of another origin can neither read the service nor sign in, nor show it in a frame."""
    page = context.new_page()
    elsewhere = site.url.replace("127.0.0.1", "localhost")  # another origin, to a browser
    page.goto(f"{elsewhere}health")
    said = page.evaluate(
        """async url => {
          const read = path => fetch(url + path).then(() => "read", () => "refused");
          const sent = await fetch(url + "sign-in", {method: "POST", mode: "no-cors", body: "{}"});
          const frame = document.createElement("iframe");
          frame.src = url;
          document.body.append(frame);
          await new Promise(done => { frame.onload = done; setTimeout(done, 2000); });
          let inside = "hidden";
          try { inside = frame.contentDocument.body.textContent; } catch {}
          return {info: await read("info"), page: await read(""), sent: sent.type, inside};
        }""",
        site.url,
    )
    assert (said["info"], said["page"], said["sent"]) == ("refused", "refused", "opaque")
    assert "Ask" not in (said["inside"] or "")

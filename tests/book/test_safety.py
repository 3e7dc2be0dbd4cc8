"""What the rendered book may do in a reader's browser: ask no other host, keep nothing but the theme, run no stranger's script."""

import base64
import hashlib
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote

import pytest

from ..conftest import LONG
from .conftest import EVERY_PAGE, EXAMINED, HTML, ROOT, serving

POLICY = (HTML / "csp.txt").read_text(encoding="utf-8").strip()
LISTEN = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(`${event.effectiveDirective} ${event.blockedURI}`));
"""


def visit(fresh, address, *, train=False):
    """Load a page, wait until it is drawn, open a solution, and train. Without wait_for_function, which the policy would refuse."""
    page = fresh.page
    page.add_init_script(LISTEN)
    page.goto(address)
    views = page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()
    if views:
        page.locator(".widget-subarea").nth(views - 1).wait_for(state="attached", timeout=30_000)
        for drawn in page.locator(".widget-subarea").all():
            drawn.locator(".rnb-lab svg polyline, .rnb-slide").first.wait_for(state="attached", timeout=30_000)
    if page.locator(".math").count():
        page.locator("mjx-container").first.wait_for(state="attached", timeout=30_000)
    if page.locator("div.solution button.toggle-button").count():
        page.locator("div.solution button.toggle-button").first.click()
        page.locator("div.solution > section > *").first.wait_for(state="visible")
    if train and page.locator(".rnb-train").count():
        page.locator(".rnb-controls input[type=number]").nth(2).fill("2")
        page.locator(".rnb-controls input[type=number]").nth(2).press("Enter")
        page.locator(".rnb-train").first.click()
        page.locator(".rnb-status", has_text="Trained in this page").first.wait_for(timeout=60_000)
    return page


@pytest.fixture(scope="module")
def guarded():
    with serving(Content_Security_Policy=POLICY) as address:
        yield address


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMINED)
def test_a_page_works_under_the_policy_and_keeps_nothing_but_the_theme(name, fresh, guarded):
    page = visit(fresh, f"{guarded}/{name}.html", train=True)
    kept = "[document.cookie, Object.keys(localStorage).sort(), Object.keys(sessionStorage), window.refused]"
    cookie, local, session, refused = page.evaluate(kept)
    assert refused == []
    assert (cookie, page.context.cookies(), session) == ("", [], [])
    assert set(local) <= {"mode", "theme"}
    assert fresh.trouble == []


@pytest.mark.parametrize(
    ("part", "directive"),
    [
        (" blob: 'wasm", "script-src-elem"),
        (" 'wasm-unsafe-eval'", "script-src"),
        (" 'unsafe-hashes'", "script-src-attr"),
        (re.search(r" 'sha256-\S+'.*?(?=;)", POLICY)[0], "script-src-elem"),
        (" blob:;", "worker-src"),
        (" 'unsafe-inline'", "style-src"),
        (" data:", "img-src"),
        ("font-src 'self'", "font-src"),
    ],
)
@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="make test-long: a page load for each part")
def test_the_policy_holds_no_part_that_no_page_needs(part, directive, browser):
    """Each part taken away is missed, by the page or by its worker (which reports to nobody: the laboratory does)."""
    assert POLICY.count(part) == 1
    less = POLICY.replace(part, {" blob: 'wasm": " 'wasm", " blob:;": " 'none';", "font-src 'self'": "font-src 'none'"}.get(part, ""))
    with serving(Content_Security_Policy=less) as address:
        page = browser.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.add_init_script(LISTEN)
        page.goto(f"{address}/book/introduction.html")
        page.wait_for_timeout(3000)
        if page.locator(".rnb-train").count():
            page.locator(".rnb-train").first.click()
            page.wait_for_timeout(3000)
        for button in page.locator("[onclick='toggleFullScreen()']").all():
            button.dispatch_event("click")
        errors = page.locator(".rnb-error, .rnb-fault").all_inner_texts()
        refused = page.evaluate("window.refused")
        page.close()
    missed = any(report.startswith(directive) for report in refused)
    assert missed or any("unsafe-eval" in text for text in [*errors, *said]), (refused, errors, said)


def test_a_stranger_s_script_does_not_run_under_the_policy(browser, guarded):
    page = browser.new_page()
    page.add_init_script(LISTEN)
    page.goto(f"{guarded}/book/bibliography.html")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data: onerror=\"window.stolen = true\">')")
    page.evaluate(
        "() => { document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.stolen = true' }));"
        " fetch('search.html').catch(() => {}); }"
    )
    page.wait_for_timeout(500)
    assert page.evaluate("window.stolen") is None
    assert {report.split()[0] for report in page.evaluate("window.refused")} == {"script-src-attr", "script-src-elem", "connect-src"}
    page.close()


def test_the_policy_in_the_book_is_that_of_its_pages():
    command = [sys.executable, ROOT / "book" / "csp.py", HTML]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == POLICY
    directives = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert directives["default-src"] == directives["connect-src"] == directives["base-uri"] == "'none'"
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "https:", "data:"} & set(directives["script-src"].split())


def test_every_script_that_browsers_execute_is_in_the_policy(tmp_path):
    (tmp_path / "page.html").write_text(
        """<script type="module">a()</script><script type="text/javascript" data-src="x">b()</script><script src="c.js"></script>
        <script type="application/json">{"d": 1}</script><p onclick='e("&lt;")'>f</p>""",
        encoding="utf-8",
    )
    said = subprocess.run([sys.executable, ROOT / "book" / "csp.py", tmp_path], capture_output=True, text=True, check=True).stdout
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in ("a()", "b()", 'e("<")'))
    assert set(re.findall(r"'sha256-([^']+)'", said)) == set(digests)


@pytest.mark.long
def test_every_internal_link_leads_to_a_file_and_to_its_anchor(record_property):
    """Sphinx checks the links that it makes itself, and not those in HTML."""
    pages = {(HTML / f"{name}.html").resolve(): (HTML / f"{name}.html").read_text(encoding="utf-8") for name in EVERY_PAGE}
    anchors = {path: {unescape(anchor) for anchor in re.findall(r"\b(?:id|name)=\"([^\"]+)\"", text)} for path, text in pages.items()}
    broken, checked = [], 0
    for path, text in pages.items():
        for link in re.findall(r"<a\b[^>]*?\bhref=\"([^\"]*)\"", re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = unquote(unescape(link)).partition("#")
            target = (path.parent / file).resolve() if file else path
            checked += 1
            if not target.is_file() or (anchor and anchor not in anchors.get(target, ())):
                broken.append((path.stem, link))
    record_property("cases", checked)
    assert checked > 1000
    assert broken == []

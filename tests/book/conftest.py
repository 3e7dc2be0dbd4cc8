"""The rendered book in a real browser, from disk and from a server, with everything that is not local blocked."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from ipywidgets.embed import embed_data
from playwright.sync_api import Browser, Locator, Page, Playwright, Request, sync_playwright

from ..conftest import LONG

if TYPE_CHECKING:
    # It comes with torch, for seconds, in the process that only hands out tests, too.
    from robustnb.widgets import Laboratory

# Before torch reads it: the browser needs the other cores.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parents[2]
HTML = ROOT / "build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *[chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]]
EVERY_PAGE = [*PAGES, *(name for name in ("search", "genindex", "prf-prf") if (HTML / f"{name}.html").is_file())]
# Of each kind one or two; `make test-long` opens every page.
SAMPLE = [
    *("book/index", "book/introduction", "book/lazy", "book/experiments_width", "book/report", "book/proofs_lazy"),
    *("book/testing", "book/api"),
]
# What takes seconds a page looks at one with a laboratory, or at every one.
EXAMINED = EVERY_PAGE if LONG else ["book/introduction"]


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Watched:
    """A page that notes what a reader should never see: requests to elsewhere, console errors, page errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.trouble: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.trouble.append(f"page error: {error}"))
        page.on("response", lambda response: response.status >= 400 and self.trouble.append(f"{response.status}: {response.url}"))
        page.on("request", self._look)

    def _look(self, request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:")):
            self.trouble.append(f"request to elsewhere: {request.url}")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


def launch(playwright: Playwright, flags: list[str]) -> Browser:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return playwright.chromium.launch(executable_path=chromium, args=flags)


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    launched = launch(playwright, FLAGS)
    yield launched
    launched.close()


@pytest.fixture(scope="session")
def gpu_browser(playwright: Playwright) -> Iterator[Browser]:
    """With WebGPU, by an adapter in software: right, and slow."""
    launched = launch(playwright, [*FLAGS, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"])
    yield launched
    launched.close()


@contextmanager
def serving(**headers: str) -> Iterator[str]:
    """The book on a server of its own, which sends these headers (an underscore stands for a hyphen)."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            super().end_headers()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(HTML)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Watched]:
    """One for all tests: what the browser has loaded and compiled for one it need not for the next, which is half of their time."""
    page = browser.new_page()
    yield Watched(page)
    page.close()


@pytest.fixture
def watched(tab: Watched) -> Iterator[Watched]:
    """An empty page, as of a reader who was never here."""
    tab.trouble.clear()
    tab.page.set_viewport_size({"width": 1200, "height": 900})
    yield tab
    tab.page.evaluate("try { localStorage.clear(); sessionStorage.clear(); } catch { /* an empty page keeps nothing */ }")
    tab.page.emulate_media(media="null", reduced_motion="null")
    tab.page.mouse.move(0, 0)
    tab.page.goto("about:blank")


@pytest.fixture
def fresh(browser: Browser) -> Iterator[Watched]:
    """A page of its own, for a test that puts scripts into it or looks at what it keeps."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    yield Watched(page)
    page.close()


@pytest.fixture
def gpu_watched(gpu_browser: Browser) -> Iterator[Watched]:
    page = gpu_browser.new_page(viewport={"width": 1200, "height": 900})
    yield Watched(page)
    page.close()


def open_page(watched: Watched, base: str, name: str) -> Page:
    """Go there and wait until mathematics and laboratories are drawn."""
    watched.page.goto(f"{base}/{name}.html")
    views = 'document.querySelectorAll(`script[type="application/vnd.jupyter.widget-view+json"]`).length'
    watched.page.wait_for_function(f"document.querySelectorAll('.widget-subarea').length === {views}", timeout=30_000)
    for lab in watched.page.locator(".widget-subarea").all():
        lab.locator(".rnb-lab svg polyline, .rnb-slide").first.wait_for(state="attached", timeout=30_000)
    if watched.page.locator(".math").count():
        watched.page.locator("mjx-container").first.wait_for(state="attached", timeout=30_000)
    return watched.page


@pytest.fixture
def lab_page(watched: Watched, server: str) -> Iterator[Page]:
    """The landing page, whose laboratory has no question."""
    yield open_page(watched, server, "book/index")
    assert watched.trouble == []


def control(page: Page, label: str, kind: str, lab: int = 0) -> Locator:
    """The slider, list or number field of a laboratory, by its label."""
    row = page.locator(".rnb-controls").nth(lab).locator(".lm-Widget", has=page.get_by_text(label, exact=True)).first
    return row.locator({"slider": ".noUi-handle", "list": "select", "number": "input"}[kind])


def set_number(page: Page, label: str, value: float, lab: int = 0) -> None:
    """Type a number, and wait until the view has it (what comes next shows it, unless something trains)."""
    field = control(page, label, "number", lab)
    field.fill(str(value))
    field.press("Enter")
    text = {"epochs": f"{value} epochs", "seed": f"seed {value}", "learning rate": f"learning rate {value}"}[label]
    if page.locator(".rnb-stop").nth(lab).get_attribute("aria-disabled") == "true":
        until(page, text, lab=lab)
    else:
        page.wait_for_timeout(200)


def press(page: Page, name: str, lab: int = 0) -> None:
    page.locator(".rnb-lab").nth(lab).get_by_role("button", name=name).first.click()


def status(page: Page, lab: int = 0) -> str:
    return page.locator(".rnb-status").nth(lab).inner_text()


def until(page: Page, text: str, *, lab: int = 0, timeout: float = 60_000) -> None:
    """Wait for a text in the status line."""
    look = "([text, lab]) => document.querySelectorAll('.rnb-status')[lab]?.innerText.includes(text)"
    page.wait_for_function(look, arg=[text, lab], timeout=timeout, polling=20)


def page_of(laboratories: "list[Laboratory]", folder: Path) -> str:
    """The address of a page with these laboratories, as a notebook with them would be rendered."""
    state = embed_data(views=laboratories, drop_defaults=False)
    views = "".join(
        f'<div><script type="application/vnd.jupyter.widget-view+json">{json.dumps(view)}</script></div>' for view in state["view_specs"]
    )
    kind = "application/vnd.jupyter.widget-state+json"
    page = folder / "laboratories.html"
    page.write_text(
        f'<!doctype html><html data-content_root="{HTML.as_uri()}/"><meta charset="utf-8">'
        f'<script src="{HTML.as_uri()}/_static/widgets.js"></script>'
        f'<script type="{kind}">{json.dumps(state["manager_state"])}</script>{views}</html>',
        encoding="utf-8",
    )
    return page.as_uri()

"""The rendered book in a real browser, from disk and from a server, with everything that is not local blocked."""

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, Route, sync_playwright

ROOT = Path(__file__).parents[2]
HTML = ROOT / "build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *[chapter["file"] for chapter in TOC["chapters"]]]


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Watched:
    """A page that notes what a reader should never see: requests to elsewhere, console errors, page errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.trouble: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.trouble.append(f"page error: {error}"))
        page.on("response", lambda response: response.status >= 400 and self.trouble.append(f"{response.status}: {response.url}"))
        page.route("**/*", self._gate)

    def _gate(self, route: Route) -> None:
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:")):
            route.continue_()
        else:
            self.trouble.append(f"request to elsewhere: {url}")
            route.abort()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(HTML)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    yield Watched(page)
    page.close()


def open_page(watched: Watched, base: str, name: str) -> Page:
    """Go there and wait until mathematics and laboratories are drawn."""
    watched.page.goto(f"{base}/{name}.html")
    watched.page.wait_for_load_state("load")
    for lab in watched.page.locator(".widget-subarea").all():
        lab.locator(".rnb-lab svg polyline, .rnb-slide").first.wait_for(state="attached", timeout=30_000)
    if watched.page.locator(".math").count():
        watched.page.locator("mjx-container").first.wait_for(state="attached", timeout=30_000)
    return watched.page

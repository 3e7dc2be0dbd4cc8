"""Pages of the rendered book, as a reader meets it with no network."""

import gzip
import re

import nbformat
import pytest

from ..conftest import LONG
from .conftest import HTML, PAGES, ROOT, SAMPLE, control, open_page


def makes(widget):
    """Pages whose notebook makes such a widget."""
    notebooks = {name: ROOT / f"{name}.ipynb" for name in PAGES}
    cells = {name: nbformat.read(path, as_version=4).cells for name, path in notebooks.items() if path.is_file()}
    return [name for name, of in cells.items() if any(f"{widget}(" in cell.source for cell in of if cell.cell_type == "code")]


LABORATORIES, SLIDES = makes("Laboratory"), makes("slides")


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "name"), [("file", name) for name in (PAGES if LONG else SAMPLE)] + [("http", PAGES[0])])
def test_a_page_works_with_no_network_moves_and_fits_a_phone(scheme, name, watched, server):
    page = open_page(watched, HTML.as_uri() if scheme == "file" else server, name)
    formulas = page.locator(".math").count()
    page.wait_for_function(f"document.querySelectorAll('.math mjx-container').length >= {formulas}")
    assert page.locator(".math mjx-merror").count() == 0
    assert (page.locator(".rnb-lab").count() >= 1) == (name in LABORATORIES)
    for image in page.locator("article img").all():
        assert len(image.get_attribute("alt") or "") > 20
        assert "_images" not in image.get_attribute("alt")
    for lab in page.locator(".rnb-lab").all():
        waits = lab.locator(".rnb-guess").is_visible()
        for plot in lab.locator(".rnb-plots svg[role=img]").all():
            words = plot.get_attribute("aria-label")
            assert re.search(r"against (width|depth).*\d", words) or (waits and words.endswith("It is shown after your prediction."))
    sliders = page.locator(".widget-subarea", has=page.locator(".rnb-slide"))
    assert (sliders.count() >= 1) == (name in SLIDES)
    for slider in sliders.all():
        every_position_shows_another_figure(slider)
    if name in LABORATORIES:
        the_width_moves_the_readout(page)
    watched.page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 360")
    assert watched.trouble == []


def every_position_shows_another_figure(slider):
    seen = set()
    for key in ("Home", "ArrowRight", "End"):
        slider.locator(".noUi-handle").press(key)
        slider.page.wait_for_timeout(100)
        readout = slider.locator(".widget-readout")
        assert readout.evaluate("(node) => node.scrollWidth <= node.clientWidth"), readout.inner_text()
        seen.add(slider.locator(".rnb-slide:visible").get_attribute("alt"))
    # A slider over measured tables has one position while there is one table.
    assert len(seen) >= min(2, slider.locator(".rnb-slide").count())


def the_width_moves_the_readout(page):
    if page.locator(".rnb-guess:visible").count():
        page.locator(".rnb-guess button", has_text="falls").first.click()
    before = page.locator(".rnb-readout").first.inner_text()
    control(page, "width m", "slider").press("ArrowRight")
    page.wait_for_function("before => document.querySelector('.rnb-readout').innerText !== before", arg=before)


@pytest.mark.parametrize("name", ["book/introduction", "book/lazy"])
def test_solutions_are_hidden_until_asked_for(name, watched):
    page = open_page(watched, HTML.as_uri(), name)
    assert page.locator("div.exercise").count() >= 3
    solutions = page.locator("div.solution").all()
    assert len(solutions) >= 3
    first = solutions[0]
    body = first.locator(":scope > section > p").first
    assert not body.is_visible()
    first.locator("button.toggle-button").first.click()
    body.wait_for(state="visible")


def test_citations_lead_to_the_bibliography(watched):
    page = open_page(watched, HTML.as_uri(), "book/introduction")
    target = page.locator("article a[href*='bibliography.html#']").first.get_attribute("href")
    page.goto(f"{HTML.as_uri()}/book/{target}")
    entry = page.locator(f"[id='{target.partition('#')[2]}']")
    assert re.search(r"\b(19|20)\d\d\b", entry.inner_text())


def test_the_landing_page_counts_the_claims_of_the_report(watched):
    page = open_page(watched, HTML.as_uri(), "book/report")
    table = page.locator("table").first
    rows = table.evaluate("table => [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll('td')].map((cell) => cell.innerText))")
    papers = [verdict for item, _, verdict, *_ in rows if item != "This book"]
    assert len(papers) >= 15
    links = table.evaluate("table => [...table.querySelectorAll('a')].map((link) => link.getAttribute('href'))")
    assert len(links) == len(rows)
    assert all((HTML / "book" / link.partition("#")[0]).is_file() for link in links)
    page = open_page(watched, HTML.as_uri(), "book/index")
    said = re.sub(r"\(.*?\)", "", page.locator("strong", has_text="Of the paper’s").inner_text())
    counts = [int(number) for number in re.findall(r"\d+", said)]
    verdicts = ("holds", "holds where decided", "holds only in part", "does not hold", "does not hold where decided", "not decided")
    assert counts == [len(papers), *map(papers.count, verdicts)]


@pytest.mark.parametrize("name", PAGES)
def test_a_further_page_costs_a_reader_little(name):
    """What only this page needs, compressed as a server sends it: the page, and its figures that are files."""
    page = HTML / f"{name}.html"
    text = page.read_text(encoding="utf-8")
    figures = {(page.parent / source).resolve() for source in re.findall(r'src="([^"]*_images/[^"]+)"', text)}
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 6)) for path in (page, *figures)}
    assert sum(sizes.values()) < 150_000, sizes


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bibliography", set()), ("notation", {"widgets.js"}), ("introduction", {"widgets.js", "robustnb-view.js"})],
)
def test_a_page_loads_only_what_it_uses(name, expected, watched, server):
    loaded = set()
    watched.page.on("request", lambda request: loaded.add(request.url.rpartition("/")[2].partition("?")[0]))
    open_page(watched, server, f"book/{name}")
    assert loaded & {"widgets.js", "robustnb-view.js", "robustnb-engine.js", "robustnb-digits.js"} == expected
    assert ("tex-mml-chtml.js" in loaded) == (watched.page.locator(".math").count() > 0)

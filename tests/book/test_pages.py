"""Every page of the rendered book, as a reader meets it with no network."""

import re

import pytest

from .conftest import HTML, PAGES, open_page


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_page_works_with_no_network(scheme, name, watched, server):
    page = open_page(watched, HTML.as_uri() if scheme == "file" else server, name)
    page.wait_for_timeout(500)
    formulas, typeset = page.locator(".math").count(), page.locator(".math mjx-container").count()
    assert typeset >= formulas
    assert page.locator(".math mjx-merror").count() == 0
    if name != "book/bibliography":
        assert page.locator(".rnb-lab").count() >= 1
    assert watched.trouble == []


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_says_what_it_shows(name, watched):
    page = open_page(watched, HTML.as_uri(), name)
    for image in page.locator("article img").all():
        assert len(image.get_attribute("alt") or "") > 20
        assert "_images" not in image.get_attribute("alt")
    for plot in page.locator(".rnb-plots svg[role=img]").all():
        assert re.search(r"against (width|depth).*\d", plot.get_attribute("aria-label"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(name, watched):
    watched.page.set_viewport_size({"width": 400, "height": 800})
    page = open_page(watched, HTML.as_uri(), name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("name", ["book/introduction", "book/setting"])
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

"""Every page for every reader: with a screen reader, with a keyboard, in the dark, on a phone, on paper."""

import re
import shutil
import subprocess

import pytest

from .conftest import EXAMINED, HTML, ROOT, open_page

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", EXAMINED)
def test_axe_finds_nothing_serious(name, watched):
    """In light and dark, with everything open that can be opened."""
    page = open_page(watched, HTML.as_uri(), name)
    page.evaluate(
        "document.querySelectorAll('details').forEach((details) => { details.open = true; });"
        "document.querySelectorAll('button.toggle-button-hidden').forEach((button) => button.click());"
    )
    page.wait_for_timeout(300)
    page.add_script_tag(path=ROOT / "node_modules" / "axe-core" / "axe.min.js")
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        page.wait_for_timeout(300)  # colours change gradually
        rules = "runOnly: ['color-contrast'], " if theme == "dark" else ""  # no other rule depends on colours
        found = page.evaluate(
            f"axe.run(document, {{ {rules}resultTypes: ['violations'] }})"
            ".then((r) => r.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html.slice(0, 200))]))"
        )
        assert [violation for violation in found if violation[0] in ("serious", "critical")] == [], theme


@pytest.mark.parametrize("name", EXAMINED)
def test_a_page_fits_a_phone_of_360_pixels(name, watched):
    """The page does not scroll sideways: what is wider, a table, a formula, code, scrolls in a box of its own, and no figure is cut."""
    page = open_page(watched, HTML.as_uri(), name)
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(300)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("article *")]
          .filter((node) => node.getBoundingClientRect().right > innerWidth + 1 && node.checkVisibility())
          .filter((node) => {
            let box = node.parentElement;
            while (box && getComputedStyle(box).overflowX === "visible") box = box.parentElement;
            return !box;
          })
          .map((node) => node.outerHTML.slice(0, 120))"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = "(i) => i.checkVisibility() && i.width < Math.min(i.naturalWidth, 480)"
    assert page.evaluate(f"[...document.querySelectorAll('.cell_output img')].filter({small}).length") == 0  # its words could not be read


@pytest.mark.parametrize("name", EXAMINED)
def test_a_page_prints(name, watched, tmp_path):
    """Dark on white in either theme, nothing wider than the paper, without what only a screen can do; solutions are there."""
    page = open_page(watched, HTML.as_uri(), name)
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 within its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(300)
    hidden = ".bd-sidebar-primary, .bd-sidebar-secondary, .rnb-controls, .rnb-bench, button.copybtn, button.toggle-button, .header-article"
    assert page.locator(f"{hidden} >> visible=true").count() == 0
    wide = """[...document.querySelectorAll("article :is(img, svg, pre, table, .rnb-lab)")]
      .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1)
      .map((node) => node.outerHTML.slice(0, 100))"""
    assert page.evaluate(wide) == []
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        ink, paper = page.evaluate(
            "['main', 'body'].map((e) => getComputedStyle(document.querySelector(e)))"
            ".map((style, i) => (i ? style.backgroundColor : style.color))"
        )
        assert max(int(v) for v in re.findall(r"\d+", ink)[:3]) < 100
        assert paper == "rgb(255, 255, 255)"
    assert page.evaluate("[...document.querySelectorAll('.cell_output li > details > p')].every((node) => node.checkVisibility())")
    solutions = page.locator("div.solution")
    assert all(solution.locator(":scope > section").is_visible() for solution in solutions.all())
    if shutil.which("pdftotext") and solutions.count():
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        text = subprocess.run(["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
        assert text.count("Solution to") >= solutions.count()


@pytest.mark.parametrize("name", EXAMINED)
def test_words_numbers_and_formulas_stand_where_a_reader_expects_them(name, watched):
    page = open_page(watched, HTML.as_uri(), name)
    # No raw name of a start, as m^-1.5, in a table or a sentence that was computed; no line that begins with the comma behind a formula.
    assert page.locator(".cell_output :is(td, th, p, li)", has_text=re.compile(r"\bm\^-\d")).count() == 0
    alone = """[...document.querySelectorAll("article p span.math")]
      .filter((node) => /^[,.;:]/.test(node.nextSibling?.data ?? ""))
      .map((node) => node.parentElement.innerHTML.slice(0, 200))"""
    assert page.evaluate(alone) == []
    # Numbers are under one another, with their head over them.
    ragged = """[...document.querySelectorAll(".cell_output table.dataframe tbody tr:first-child td")]
      .filter((cell) => /^-?[0-9.]+$/.test(cell.innerText) !== (getComputedStyle(cell).textAlign === "right"))
      .filter((cell) => [...cell.closest("tbody").rows].every((row) => /^-?[0-9.]+$/.test(row.cells[cell.cellIndex]?.innerText)))
      .map((cell) => cell.closest("table").innerText.slice(0, 200))"""
    assert page.evaluate(ragged) == []

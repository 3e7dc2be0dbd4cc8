"""The laboratory in the rendered page, without a kernel: every control moves the drawing."""

import re

import pytest

from robustnb.sweep import load_atlas

from .conftest import HTML, control, open_page

SLIDERS = ("width m", "depth L")
LISTS = ("init", "against", "large plot")
NUMBERS = ("exponent c", "learning rate", "epochs", "seed")


def drawing(page):
    return page.locator(".rnb-lab").first.evaluate("lab => lab.querySelector('.rnb-plots').innerHTML + lab.innerText")


def changed(page, before):
    page.wait_for_function(
        "before => { const lab = document.querySelector('.rnb-lab');"
        " return lab.querySelector('.rnb-plots').innerHTML + lab.innerText !== before; }",
        arg=before,
        timeout=5000,
    )


@pytest.fixture
def lab_page(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    yield page
    assert watched.trouble == []


@pytest.mark.parametrize("label", SLIDERS)
def test_a_slider_moves_the_drawing_by_keyboard_and_by_mouse(label, lab_page):
    handle = control(lab_page, label, "slider")
    before = drawing(lab_page)
    handle.focus()
    lab_page.keyboard.press("ArrowRight")
    changed(lab_page, before)
    before = drawing(lab_page)
    box = handle.bounding_box()
    lab_page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    lab_page.mouse.down()
    lab_page.mouse.move(box["x"] - 60, box["y"] + box["height"] / 2, steps=4)
    lab_page.mouse.up()
    changed(lab_page, before)


@pytest.mark.parametrize("label", LISTS)
def test_a_list_moves_the_drawing_by_keyboard_and_by_mouse(label, lab_page):
    select = control(lab_page, label, "list")
    before = drawing(lab_page)
    select.focus()
    lab_page.keyboard.press("ArrowDown")
    changed(lab_page, before)
    before = drawing(lab_page)
    select.select_option(index=0)
    changed(lab_page, before)


@pytest.mark.parametrize("label", NUMBERS)
def test_a_number_moves_the_drawing_by_keyboard_and_by_mouse(label, lab_page):
    field = control(lab_page, label, "number")
    before = drawing(lab_page)
    field.focus()
    lab_page.keyboard.press("ArrowUp")
    lab_page.keyboard.press("Tab")
    changed(lab_page, before)
    before = drawing(lab_page)
    field.click(click_count=3)
    lab_page.keyboard.type("7")
    lab_page.get_by_text("The numbers behind this plot").first.click()
    changed(lab_page, before)


def test_the_readout_and_the_numbers_are_those_of_the_atlas(lab_page):
    control(lab_page, "init", "list").select_option(label="LeCun")
    handle = control(lab_page, "width m", "slider")
    handle.focus()
    lab_page.keyboard.press("Home")
    lab_page.wait_for_function("document.querySelector('.rnb-readout').innerText.includes('LeCun, width 4, depth 8')")
    atlas = load_atlas("digits")
    rows = atlas[(atlas.init == "lecun") & (atlas.depth == 8)]
    expected = rows[rows.width == 4].stability.mean()
    shown = float(re.search(r"P/ε = ([\d.]+)", lab_page.locator(".rnb-readout").first.inner_text())[1])
    assert shown == pytest.approx(expected, rel=5e-3)
    lab_page.get_by_text("The numbers behind this plot").first.click()
    lines = lab_page.locator(".rnb-numbers tr").all_inner_texts()[1:]
    table = {int(cells[0]): float(cells[1]) for cells in (line.split("\t") for line in lines)}
    assert table == pytest.approx(rows.groupby("width").stability.mean().to_dict(), rel=5e-3)


def test_a_setting_that_was_not_measured_says_so(lab_page):
    control(lab_page, "init", "list").select_option(label="m⁻ᶜ")
    lab_page.wait_for_function("document.querySelector('.rnb-readout').innerText.includes('not in the measured table')")


def test_the_plot_is_legible_in_the_dark(lab_page):
    lab_page.evaluate("document.documentElement.dataset.theme = 'dark'")

    def luminance(color):
        red, green, blue = (float(v) / 255 for v in re.findall(r"[\d.]+", color)[:3])
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    ink = lab_page.locator(".rnb-tick").first.evaluate("t => getComputedStyle(t).fill")
    label = lab_page.locator(".rnb-controls .widget-label").first.evaluate("t => getComputedStyle(t).color")
    paper = lab_page.evaluate("getComputedStyle(document.body).backgroundColor")
    box = lab_page.locator(".widget-subarea").first.evaluate("t => getComputedStyle(t).backgroundColor")
    assert box == "rgba(0, 0, 0, 0)"
    for color in (ink, label):
        assert (luminance(color) + 0.05) / (luminance(paper) + 0.05) > 4.5


def test_slides_change_the_picture(watched):
    page = open_page(watched, HTML.as_uri(), "book/introduction")
    handle = page.locator(".widget-subarea", has=page.locator(".rnb-slide")).first.locator(".noUi-handle")

    def shown():
        return page.locator(".rnb-slide:visible").get_attribute("alt")

    assert "radius 0," in shown()
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert "radius 0.1," in shown()
    page.keyboard.press("End")
    page.wait_for_timeout(300)
    assert "radius 6," in shown()


def test_a_screen_reader_hears_what_a_slider_is_and_shows(lab_page):
    handle = lab_page.get_by_role("slider", name="width m").first
    handle.focus()
    lab_page.keyboard.press("ArrowRight")
    lab_page.wait_for_function("document.querySelector('[aria-label=\"width m\"]').getAttribute('aria-valuetext') === '32'")
    for field in lab_page.locator(".rnb-controls input, .rnb-controls select").all():
        identity = field.get_attribute("id")
        assert lab_page.locator(f"label[for='{identity}']").count() == 1

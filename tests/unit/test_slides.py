import io
import re
from xml.etree import ElementTree as ET

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from robustnb.widgets.slides import AS_TEXT, compact_svg, slides

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def picture():
    figure = Figure()
    axes = figure.subplots()
    x = np.linspace(0, 3, 50)
    axes.plot(x, np.sin(x), "o-", label=r"a: b; $P/\epsilon$")
    axes.fill_between(x, x, x + 1, alpha=0.2)
    axes.legend(title="at L = 2; M 1.0 km")
    buffer = io.StringIO()
    with mpl.rc_context(AS_TEXT):
        figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_a_compact_picture_has_the_same_parts_in_the_same_places():
    whole = picture()
    before, after = ET.fromstring(whole), ET.fromstring(compact_svg(whole))
    for tag in ("path", "use", "clipPath", "text"):
        assert len(list(after.iter(SVG + tag))) == len(list(before.iter(SVG + tag)))
    numbers = [
        [float(n) for path in root.iter(SVG + "path") for n in re.findall(r"-?\d+\.?\d*", path.get("d") or "")]
        + [float(use.get(axis)) for use in root.iter(SVG + "use") for axis in "xy" if use.get(axis)]
        for root in (before, after)
    ]
    np.testing.assert_allclose(*numbers, rtol=0, atol=0.1)
    words = [["".join(part.strip() for part in text.itertext()) for text in root.iter(SVG + "text")] for root in (before, after)]
    assert words[0] == words[1]
    assert "at L = 2; M 1.0 km" in words[0]
    scales = [re.findall(r"scale\(([^)]*)\)", ET.tostring(root, "unicode")) for root in (before, after)]
    assert scales[0] == scales[1]


def test_every_reference_in_a_compact_picture_leads_somewhere_and_it_is_much_smaller():
    whole = picture()
    short = compact_svg(whole)
    after = ET.fromstring(short)
    known = {element.get("id") for element in after.iter()}
    references = [use.get("href") or use.get(HREF) for use in after.iter(SVG + "use")]
    references += re.findall(r"url\((#[^)]*)\)", short)
    assert len(references) > 50
    assert {reference.removeprefix("#") for reference in references} <= known
    assert len(short) < 0.7 * len(whole)


def test_names_that_begin_alike_stay_apart():
    marker = '<path id="m42d7{0}" d="M 0 0"/><use xlink:href="#m42d7{0}" clip-path="url(#p42d7{0})"/><clipPath id="p42d7{0}"/>'
    short = compact_svg(f"<svg>{marker.format('000000')}{marker.format('111111')}</svg>")
    names = re.findall('id="([^"]*)"', short)
    assert len(set(names)) == len(names) == 4
    assert re.findall(r"[\"(]#(\w+)", short) == [names[0], names[1], names[2], names[3]]


def test_slides_close_their_figures_and_name_their_pictures():
    def draw(value):
        figure, axes = plt.subplots()
        axes.plot([0, value])
        return figure, f'A "line" to {value} & back'

    box = slides("end", [("one", 1), ("two", 2)], draw)
    assert plt.get_fignums() == []
    slider, stack = box.children
    assert slider.options == ("one", "two")
    assert "A &quot;line&quot; to 2 &amp; back" in stack.children[1].value
    assert stack.children[0].value.count("data:image/svg+xml,") == 1

"""The page's own mathematics, run by Node: the curves against `theory`, the random numbers against their laws."""

import json
import subprocess

import numpy as np
import pytest
from scipy import stats

from robustnb import theory
from robustnb.initialization import NAMED, get_initialization

from .conftest import ROOT

WIDGETS = ROOT / "robustnb" / "widgets"


def node(code, *scripts):
    """What `code` returns as JSON, after these scripts of the widgets."""
    source = "\n".join((WIDGETS / name).read_text(encoding="utf-8") for name in scripts)
    source += f"\nconsole.log(JSON.stringify((() => {{ {code} }})()));"
    result = subprocess.run(["node", "--input-type=module", "-e", source], capture_output=True, encoding="utf-8", check=True, timeout=60)
    return json.loads(result.stdout)


@pytest.mark.parametrize("init", [*NAMED, "m^-1", "m^-1.5", "m^-2.5"])
@pytest.mark.parametrize(("width", "depth"), [(4, 2), (64, 5), (1024, 10)])
def test_the_view_computes_what_theory_computes(init, width, depth):
    kind, c = ("m^-c", init[3:]) if init.startswith("m^-") else (init, "0")
    shape = {"inputs": 64, "outputs": 10, "ball": float(theory.mean_ball_radius(64)), "log_chi": float(theory.log_mean_chi(10))}
    gain = float(theory.log_relu_gain(width))
    code = f"""const shape = {json.dumps(shape)};
      return [betas("{kind}", {c}, 64, {width}, 10), exactStability(shape, "{kind}", {c}, {width}, {depth}, {gain}),
        "{kind}" === "m^-c" ? null : theorem1(shape, "{kind}", {width}, {depth})];"""
    betas, exact, bound = node(code, "curves.js")
    sizes = {"inputs": 64, "width": width, "depth": depth, "outputs": 10}
    assert betas == pytest.approx([float(beta) for beta in get_initialization(init).scales(**sizes)[:3]], rel=1e-12)
    assert exact == pytest.approx(float(theory.stability_at_initialization(init, **sizes)), rel=1e-9)
    if bound is not None:
        assert bound == pytest.approx(float(theory.theorem_1(init, **sizes).total), rel=1e-9)


@pytest.mark.parametrize(
    ("ys", "error", "shape"),
    [
        ([1, 2, 3], 0.1, "rises"),
        ([3, 2, 1], 0.1, "falls"),
        ([1, 3, 2], 0.1, "rises, then falls"),
        ([3, 1, 2], 0.1, "falls, then rises"),
        ([1, 3, 2.95], 0.1, "rises"),  # a turn within its error is none
        ([3, 1, 1.05], 0.1, "falls"),
    ],
)
def test_a_curve_is_called_by_its_shape(ys, error, shape):
    points = [{"x": x, "y": y, "low": y - error} for x, y in enumerate(ys)]
    assert node(f"return SHAPES[shapeOf({json.dumps(points)})];", "curves.js") == shape


@pytest.mark.parametrize(
    ("seconds", "words"),
    [("NaN", ""), (4, ""), (41, "About 40 s left."), (100, "About 2 min left."), (4000, "About 67 min left.")],
)
def test_the_time_left_is_said_roughly(seconds, words):
    assert node(f"return timeLeft({seconds}, '');", "bench.js") == words


def test_random_numbers_follow_their_laws_and_their_seed():
    """Kolmogorov–Smirnov and chi-squared, each at 1e-4; the seeds are fixed."""
    code = """
      const uniform = generator(1);
      const u = Array.from({ length: 20000 }, uniform);
      const z = [...normals(uniform, 20001, 2)];
      const vectors = ball(uniform, 5000, 3);
      const lengths = Array.from({ length: 5000 }, (_, i) => Math.hypot(...vectors.subarray(3 * i, 3 * i + 3)));
      const first = Array.from({ length: 24000 }, () => shuffle(uniform, [0, 1, 2, 3]).join(""));
      return { u, z, lengths, first, again: [generator(1)(), generator(2)()] };"""
    drawn = node(code.replace("export ", ""), "random.js")
    assert stats.kstest(drawn["u"], "uniform").pvalue > 1e-4
    assert stats.kstest(drawn["z"], "norm", args=(0, 2)).pvalue > 1e-4
    assert abs(stats.spearmanr(drawn["z"][:-1], drawn["z"][1:]).statistic) < 4 / np.sqrt(20000)
    assert stats.kstest(np.array(drawn["lengths"]) ** 3, "uniform").pvalue > 1e-4
    orders = np.unique(drawn["first"], return_counts=True)[1]
    assert len(orders) == 24
    assert stats.chisquare(orders).pvalue > 1e-4
    assert drawn["again"][0] == drawn["u"][0] != drawn["again"][1]

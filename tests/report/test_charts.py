import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pneumo.report import charts
from pneumo.report.charts import Axis, Plot, Scale
from pneumo.report.wording import MINUS

CURVE = pd.DataFrame({"false_positive_rate": [0.0, 0.0, 0.5, 1.0], "sensitivity": [0.0, 0.5, 0.9, 1.0]})
BAND = pd.DataFrame(
    {"false_positive_rate": [0.0, 0.5, 1.0], "low": [0.0, 0.8, 1.0], "high": [0.3, 0.95, 1.0]}
)
BINS = pd.DataFrame({"predicted": [0.2, 0.7], "observed": [0.4, 0.6]})
BENEFIT = pd.DataFrame({"threshold": [0.1, 0.5], "model": [0.4, 0.2], "all": [0.4, -0.5], "none": [0.0, 0.0]})
HISTORY = pd.DataFrame({"loss": [0.7, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.65]})
DRAW = {
    "plot_roc": lambda: charts.plot_roc(CURVE, BAND, (0.5, 0.9), "a <title>", "roc"),
    "plot_reliability": lambda: charts.plot_reliability({"as predicted": BINS, "scaled": BINS}, "a <title>"),
    "plot_net_benefit": lambda: charts.plot_net_benefit(BENEFIT, "a <title>"),
    "plot_densities": lambda: charts.plot_densities(
        {"normal": np.array([1.0, 1.2]), "pneumonia": np.array([1.4])},
        Axis("width by height", 0.5, 2.5),
        "ratios",
        "a <title>",
    ),
    "plot_history": lambda: charts.plot_history(HISTORY, "loss", "a <title>"),
}


def read(markup):
    """Parse a chart; what is not well-formed fails here."""
    return ElementTree.fromstring(f"<div>{markup}</div>")  # noqa: S314


def find_path(markup, kind):
    (path,) = [
        each for each in read(markup).iter("path") if each.get("class") == kind and each.get("d") != "M0 5H26"
    ]
    numbers = re.findall(r"-?[\d.]+", path.get("d"))
    return np.array(numbers, float).reshape(-1, 2)


def test_every_plot_is_tested():
    assert set(DRAW) == {name for name in vars(charts) if name.startswith("plot_")}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())
def test_a_plot_speaks_to_those_who_do_not_see_it(draw):
    svg = read(draw()).find("svg")
    assert svg.get("role") == "img"
    spoken = {svg.find(tag).get("id"): svg.find(tag).text for tag in ("title", "desc")}
    assert svg.get("aria-labelledby").split() == list(spoken)
    title, description = spoken.values()
    assert title.startswith("a <title>")
    assert description.endswith(".")


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())
def test_the_same_data_give_the_same_plot(draw):
    assert draw() == draw()


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())
def test_colours_are_those_of_the_page(draw):
    assert not re.search(r"#[0-9a-f]{3}|(fill|stroke)=", str(draw()))


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())
def test_nothing_is_drawn_beyond_the_picture(draw):
    svg = read(draw()).find("svg")
    width, height = (float(value) for value in svg.get("viewBox").split()[2:])
    for path in svg.iter("path"):
        points = np.array(re.findall(r"-?[\d.]+", path.get("d")), float).reshape(-1, 2)
        assert (points >= 0).all()
        assert (points <= [width, height]).all()


class TestScale:
    def test_ends_and_middle(self):
        scale = Scale(0.0, 2.0, 10.0, 30.0)
        assert [scale.place(value) for value in (0, 1, 2)] == [10, 20, 30]

    def test_what_lies_beyond_is_put_at_the_end(self):
        assert Scale(0.0, 1.0).place(-5) == 0
        assert Scale(0.0, 1.0).place(5) == 100

    def test_differences_the_margin_and_zero_are_within(self):
        scale = charts.frame_differences([0.03, 0.05, np.nan], margin=0.01)
        assert scale.low < -0.01
        assert scale.high > 0.05
        assert charts.frame_differences([0.03, 0.05], margin=None).low < 0
        alone = charts.frame_differences([], margin=None)
        assert alone.low < 0 < alone.high


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.043, 0.021, [-0.04, -0.02, 0, 0.02]),
        (1.0, 30.0, [10, 20, 30]),
        (0.97, 0.999, [0.97, 0.98, 0.99]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert charts.choose_ticks(low, high, 5) == pytest.approx(expected)


class TestDifference:
    SCALE = Scale(-0.1, 0.1)

    def draw(self, value=0.02, low=-0.01, high=0.05, margin=0.01, is_main=True):
        return read(charts.draw_difference(value, low, high, self.SCALE, "harms", margin, is_main)).find(
            "svg"
        )

    def test_mark_and_interval_are_at_their_values(self):
        svg = self.draw()
        (mark,) = svg.findall("svg")
        assert mark.get("x") == "60.00%"
        bar = next(line for line in svg.findall("line") if line.get("class") == "bar harms")
        assert (bar.get("x1"), bar.get("x2")) == ("45.00%", "75.00%")

    def test_the_margin_is_shaded_on_both_sides_of_zero(self):
        svg = self.draw()
        shade = svg.find("rect")
        assert (shade.get("x"), shade.get("width")) == ("45.00%", "10.00%")
        zero = next(line for line in svg.findall("line") if line.get("class") == "zero")
        assert zero.get("x1") == "50.00%"
        assert self.draw(margin=None).find("rect") is None

    def test_the_main_effect_has_another_mark_than_a_part(self):
        assert self.draw().find("svg/path") is not None
        assert self.draw(is_main=False).find("svg/circle") is not None

    def test_unknown_numbers_are_not_drawn(self):
        svg = self.draw(low=np.nan, high=np.nan)
        assert not [line for line in svg.findall("line") if "bar" in line.get("class")]
        assert self.draw(value=np.nan).find("svg") is None

    def test_the_axis_names_its_ticks(self):
        svg = read(charts.draw_difference_axis(self.SCALE)).find("svg")
        assert [text.text for text in svg.findall("text")] == ["\N{MINUS SIGN}0.05", "0", "+0.05"]

    def test_both_sides_of_zero_are_named(self):
        svg = read(charts.draw_direction(self.SCALE, "raw")).find("svg")
        left, right = svg.findall("text")
        assert "raw is better" in left.text
        assert left.get("text-anchor") == "end"
        assert float(left.get("x").rstrip("%")) < 50 < float(right.get("x").rstrip("%"))
        assert "raw is worse" in right.text

    def test_strips_are_hidden_where_the_table_speaks(self):
        assert self.draw().get("aria-hidden") == "true"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.045, 0.03, ["-0.04", "-0.02", "0", "+0.02"]),
        (-0.01, 0.012, ["-0.005", "0", "+0.005", "+0.010"]),
        (-1.0, 1.0, ["-0.5", "0", "+0.5"]),
    ],
)
def test_ticks_of_differences_have_the_digits_that_they_need(low, high, expected):
    axis = charts.draw_difference_axis(Scale(low, high))
    texts = re.findall(r">([^<>]+)</text>", str(axis))
    assert [text.replace(MINUS, "-") for text in texts] == expected


def test_a_line_goes_through_its_points():
    plot = Plot("p", "t", "d", Axis("x"), Axis("y"))
    plot.add_line(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.0]), "line-1")
    points = find_path(plot.render(), "line line-1")
    left, right = plot.scale_x.place(0), plot.scale_x.place(1)
    bottom, top = plot.scale_y.place(0), plot.scale_y.place(1)
    np.testing.assert_allclose(
        points, [[left, bottom], [(left + right) / 2, top], [right, bottom]], atol=0.06
    )
    assert top < bottom


def test_points_on_a_straight_line_are_left_out_and_corners_kept():
    x = np.linspace(0, 1, 101)
    plot = Plot("p", "t", "d", Axis("x"), Axis("y"))
    plot.add_line(x, np.where(x < 0.5, 0.0, 1.0), "line-1")
    assert len(find_path(plot.render(), "line line-1")) == 4


def test_the_roc_curve_has_its_band_and_its_point():
    markup = DRAW["plot_roc"]()
    plot = Plot("p", "t", "d", Axis("x"), Axis("y"))
    curve = find_path(markup, "line line-1")
    for x, y in CURVE.to_numpy():
        assert np.abs(curve - [plot.scale_x.place(x), plot.scale_y.place(y)]).max(axis=1).min() < 0.06
    band = find_path(markup, "band")
    assert np.abs(band - [plot.scale_x.place(0.5), plot.scale_y.place(0.8)]).max(axis=1).min() < 0.06
    (point,) = [each for each in read(markup).iter("circle") if each.get("class") == "dot at"]
    assert float(point.get("cx")) == pytest.approx(plot.scale_x.place(0.5), abs=0.06)
    assert "band" not in str(charts.plot_roc(CURVE, None, None, "t", "roc"))


def test_a_roc_curve_that_is_not_defined_is_an_empty_plot():
    empty = CURVE.iloc[:0]
    assert 'class="line line-1" d=""' in str(charts.plot_roc(empty, None, None, "t", "roc"))


def test_lines_are_named_below_the_plot():
    legend = read(DRAW["plot_reliability"]()).find("ul")
    assert ["".join(item.itertext()).strip() for item in legend] == ["as predicted", "scaled"]
    styles = {item.find("svg/path").get("class") for item in legend}
    assert len(styles) == 2


def test_net_benefit_is_not_drawn_far_below_zero():
    lines = [
        path for path in read(DRAW["plot_net_benefit"]()).iter("path") if path.get("class") == "line line-2"
    ]
    assert len(re.findall(r"[\d.]+ [\d.]+", lines[0].get("d"))) == 1


def test_a_histogram_counts_shares_of_its_class():
    markup = charts.plot_densities(
        {"a": np.array([0.5, 0.5, 9.0, 9.0])}, Axis("x", 0.0, 3.0), "name", "title"
    )
    points = find_path(markup, "line line-1")
    top = 1.08 * 0.5
    plot = Plot("p", "t", "d", Axis("x", 0.0, 3.0), Axis("y", 0.0, top))
    assert points[:, 1].min() == pytest.approx(plot.scale_y.place(0.5), abs=0.06)
    # What lies beyond the axis counts in the last bin.
    assert plot.scale_x.place(2.95) < points[points[:, 1] < plot.scale_y.place(0.4)][:, 0].max()


def test_history_has_training_and_validation():
    points = find_path(DRAW["plot_history"](), "line line-1")
    assert len(points) == 3
    assert points[0, 1] < points[2, 1]  # the loss falls, and y grows downwards

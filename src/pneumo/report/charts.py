"""Charts of the page: numbers in, inline SVG out.

Colours are classes of the page's style sheet, so that charts follow its light and dark scheme. Text is text.
Series differ by their dashes or marks too, not by colour alone. A chart has a title and a description for
readers who do not see it; a strip stands in a table that holds its numbers and is hidden from them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup, escape

FloatArray = npt.NDArray[np.float64]

SERIES = ("line-1", "line-2", "line-3")  # classes of the style sheet, for up to three lines in a chart
_STRAIGHT_PX = 0.2  # a point of a line that lies closer to the line between its neighbours is left out
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 44  # margins of a plot
_DIAMOND = "M-8 0L0 -6.5L8 0L0 6.5Z"


@dataclass(frozen=True)
class Scale:
    """A straight line from values to places.

    Attributes:
        low, high: values at the two ends.
        start, end: their places, in pixels or per cent.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0

    def place(self, value: float) -> float:
        """Return the place of a value; beyond the ends, that of the end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def choose_ticks(low: float, high: float, n: int = 6) -> list[float]:
    """Return at most n + 1 round numbers from low to high, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / n
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [round(number * step, 10) for number in range(first, last + 1)]


def frame_differences(values: Iterable[float], margin: float | None) -> Scale:
    """Return a scale in per cent that holds all differences, 0, and the equivalence margin on both sides."""
    shown = [value for value in values if not pd.isna(value)]
    shown += [0.0] if margin is None else [-margin, margin]
    low, high = min(shown), max(shown)
    pad = 0.08 * (high - low) or 0.01
    return Scale(low - pad, high + pad)


def draw_difference(
    value: float, low: float, high: float, scale: Scale, kind: str, margin: float | None, is_main: bool
) -> Markup:
    """Draw one row of a forest plot: a difference and its interval.

    Args:
        value: the difference.
        low: lower end of its interval; nan where it is not known.
        high: upper end; likewise.
        scale: in per cent, shared by all rows.
        kind: class of its colour.
        margin: of equivalence, shaded; None where there is none.
        is_main: a diamond with a thick line, else a dot with a thin one.
    """
    parts = [_draw_ground(scale, margin)]
    if not pd.isna(low) and not pd.isna(high):
        parts.append(
            f'<line class="bar {kind}" x1="{scale.place(low):.2f}%" x2="{scale.place(high):.2f}%" '
            'y1="50%" y2="50%"/>'
        )
    if not pd.isna(value):
        mark = (
            f'<path class="dot {kind}" d="{_DIAMOND}"/>' if is_main else f'<circle class="dot {kind}" r="3"/>'
        )
        parts.append(f'<svg x="{scale.place(value):.2f}%" y="50%" overflow="visible">{mark}</svg>')
    return _strip("".join(parts), "main" if is_main else "part")


def draw_direction(scale: Scale, reference: str) -> Markup:
    """Write above a forest plot on which side of 0 the reference is better."""
    zero, name = scale.place(0), escape(reference)
    better, worse = f"\N{LEFTWARDS ARROW} {name} is better", f"{name} is worse \N{RIGHTWARDS ARROW}"
    return _strip(
        f'<text x="{zero - 2:.2f}%" y="13" text-anchor="end">{better}</text>'
        f'<text x="{zero + 2:.2f}%" y="13">{worse}</text>',
        "axis",
    )


def draw_difference_axis(scale: Scale) -> Markup:
    """Draw the axis below the rows of a forest plot."""
    ticks = choose_ticks(scale.low, scale.high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.01
    digits = max(1, ceil(-log10(step) - 1e-9))  # no more than the steps need
    shown = [tick for tick in ticks if 4 < scale.place(tick) < 96]
    parts = ['<line class="zero" x1="0" x2="100%" y1="0" y2="0"/>']
    for tick in shown:
        x = f"{scale.place(tick):.2f}%"
        parts.append(f'<line class="zero" x1="{x}" x2="{x}" y1="0" y2="4"/>')
        parts.append(f'<text x="{x}" y="18" text-anchor="middle">{_sign(tick, digits)}</text>')
    return _strip("".join(parts), "axis")


def draw_interval(
    value: float, low: float, high: float, scale: Scale, kind: str, marks: Sequence[float]
) -> Markup:
    """Draw a value with its interval on a strip.

    Args:
        value: drawn as a dot.
        low: lower end of its interval; nan where it is not known.
        high: upper end; likewise.
        scale: in per cent.
        kind: class of its colour.
        marks: values of thin vertical lines.
    """
    lines = "".join(
        f'<line class="zero" x1="{scale.place(mark):.2f}%" x2="{scale.place(mark):.2f}%" y1="0" y2="100%"/>'
        for mark in marks
    )
    if not pd.isna(low):
        lines += (
            f'<line class="bar {kind}" x1="{scale.place(low):.2f}%" x2="{scale.place(high):.2f}%" '
            'y1="50%" y2="50%"/>'
        )
    if not pd.isna(value):
        lines += f'<circle class="dot {kind}" cx="{scale.place(value):.2f}%" cy="50%" r="4"/>'
    return _strip(lines, "part")


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Attributes:
        label: what it measures.
        low, high: values at its ends.
        digits: after the point, of its ticks.
        percent: ticks are written in per cent.
    """

    label: str
    low: float = 0.0
    high: float = 1.0
    digits: int = 1
    percent: bool = False

    def write(self, value: float) -> str:
        """Write a tick."""
        if self.percent:
            return f"{100 * value:.0f} %"
        return f"{value:,.{self.digits}f}".replace("-", "\N{MINUS SIGN}")


@dataclass
class Plot:
    """A chart with two axes, to which marks are added one by one.

    Attributes:
        name: unique on the page.
        title: what a reader who does not see the chart hears first.
        description: what it shows, in a sentence.
        x, y: its axes.
        width, height: of the drawing, which is scaled to the page, in pixels.
    """

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    width: int = 380
    height: int = 320
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    @property
    def scale_x(self) -> Scale:
        """From values to pixels, to the right."""
        return Scale(self.x.low, self.x.high, _LEFT, self.width - _RIGHT)

    @property
    def scale_y(self) -> Scale:
        """From values to pixels, upwards."""
        return Scale(self.y.low, self.y.high, self.height - _BOTTOM, _TOP)

    def add_line(self, x: FloatArray, y: FloatArray, kind: str, label: str | None = None) -> None:
        """Add a line.

        Args:
            x: float array of shape (n,).
            y: likewise.
            kind: class of the style sheet.
            label: in the legend; None names it nowhere.
        """
        points = self._place(x, y)
        self.parts.append(f'<path class="line {kind}" d="{_write_path(_thin(points))}"/>')
        if label is not None:
            self.legend.append((kind, label))

    def add_band(self, x: FloatArray, low: FloatArray, high: FloatArray) -> None:
        """Add a shaded band between two lines over the same x."""
        above, below = _thin(self._place(x, high)), _thin(self._place(x, low))[::-1]
        self.parts.append(f'<path class="band" d="{_write_path(np.vstack([above, below]))}Z"/>')

    def add_dots(self, x: FloatArray, y: FloatArray, kind: str) -> None:
        """Add a dot at each point."""
        self.parts += [
            f'<circle class="dot {kind}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="3.5"/>'
            for at_x, at_y in self._place(x, y)
        ]

    def add_steps(self, edges: FloatArray, heights: FloatArray, kind: str, label: str) -> None:
        """Add a histogram's outline: heights, float array of shape (n,), between n + 1 edges."""
        x = np.repeat(edges, 2)
        y = np.concatenate([[self.y.low], np.repeat(heights, 2), [self.y.low]])
        self.add_line(x, y, kind, label)

    def render(self) -> Markup:
        """Return the chart as an `svg` element, with its legend behind it."""
        ids = f"{self.name}-title {self.name}-text"
        x, y = self.scale_x, self.scale_y
        head = (
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" aria-labelledby="{ids}" '
            f'data-x0="{x.start:g}" data-x1="{x.end:g}" data-y0="{y.start:g}" data-y1="{y.end:g}">'
            f'<title id="{self.name}-title">{escape(self.title)}</title>'
            f'<desc id="{self.name}-text">{escape(self.description)}</desc>'
        )
        body = "".join([*self._draw_axes(), *self.parts])
        keys = "".join(
            f'<li><svg width="26" height="10" aria-hidden="true">'
            f'<path class="line {kind}" d="M0 5H26"/></svg> {escape(label)}</li>'
            for kind, label in self.legend
        )
        legend = f'<ul class="legend">{keys}</ul>' if keys else ""
        return Markup(f"{head}{body}</svg>{legend}")  # noqa: S704 - texts are escaped above

    def _place(self, x: FloatArray, y: FloatArray) -> FloatArray:
        scale_x, scale_y = self.scale_x, self.scale_y
        return np.array([[scale_x.place(a), scale_y.place(b)] for a, b in zip(x, y, strict=True)]).reshape(
            -1, 2
        )

    def _draw_axes(self) -> list[str]:
        left, right, bottom = _LEFT, self.width - _RIGHT, self.height - _BOTTOM
        parts = []
        for tick in choose_ticks(self.y.low, self.y.high, 5):
            at = self.scale_y.place(tick)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(
                f'<text x="{left - 7}" y="{at + 4:.1f}" text-anchor="end">{self.y.write(tick)}</text>'
            )
        for tick in choose_ticks(self.x.low, self.x.high, 5):
            at = self.scale_x.place(tick)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(
                f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{self.x.write(tick)}</text>'
            )
        middle = (left + right) / 2
        parts.append(
            f'<text class="label" x="{middle:.0f}" y="{self.height - 6}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
        )
        at = (_TOP + bottom) / 2
        parts.append(
            f'<text class="label" transform="translate(12 {at:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.label)}</text>"
        )
        return parts


def plot_roc(
    curve: pd.DataFrame,
    band: pd.DataFrame | None,
    point: tuple[float, float] | None,
    title: str,
    name: str,
) -> Markup:
    """Plot a ROC curve with the interval of its sensitivity and the point where the model decides.

    Args:
        curve: with `false_positive_rate` and `sensitivity`.
        band: with `false_positive_rate`, `low` and `high`; None where it is not known.
        point: false-positive rate and sensitivity at the threshold; None where there is no threshold.
        title: of the chart.
        name: of the chart, unique on the page.
    """
    plot = Plot(
        name,
        title,
        "Sensitivity by 1 minus specificity. The closer to the upper left corner, the better.",
        Axis("1 \N{MINUS SIGN} specificity"),
        Axis("sensitivity"),
    )
    if band is not None:
        plot.add_band(*(band[name].to_numpy(float) for name in ("false_positive_rate", "low", "high")))
    plot.add_line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "chance")
    plot.add_line(
        curve["false_positive_rate"].to_numpy(float), curve["sensitivity"].to_numpy(float), "line-1"
    )
    if point is not None:
        plot.add_dots(np.array([point[0]]), np.array([point[1]]), "at")
    return plot.render()


def plot_reliability(bins: Mapping[str, pd.DataFrame], title: str) -> Markup:
    """Plot observed fractions by predicted probability, in bins; on the diagonal, they agree.

    Args:
        bins: name -> frame with `predicted` and `observed`; at most three.
        title: of the chart.
    """
    plot = Plot(
        "reliability",
        title,
        "Observed fraction by predicted probability. On the diagonal, probabilities mean what they say.",
        Axis("predicted probability"),
        Axis("observed fraction"),
    )
    plot.add_line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "chance")
    for kind, (name, table) in zip(SERIES, bins.items(), strict=False):
        x, y = table["predicted"].to_numpy(float), table["observed"].to_numpy(float)
        plot.add_line(x, y, kind, name)
        plot.add_dots(x, y, kind)
    return plot.render()


def plot_net_benefit(benefit: pd.DataFrame, title: str) -> Markup:
    """Plot net benefit by threshold (a decision curve).

    Args:
        benefit: with `threshold`, `model`, `all` and `none`.
        title: of the chart.
    """
    top = max(float(benefit["model"].max()), float(benefit["all"].max()), 0.01)
    plot = Plot(
        "benefit",
        title,
        "Net benefit by threshold probability, of acting on the model, on everybody and on nobody.",
        Axis("threshold probability"),
        Axis("net benefit", low=-0.25 * top, high=1.05 * top, digits=2),
    )
    labels = {"model": "act on the model", "all": "act on everybody", "none": "act on nobody"}
    x = benefit["threshold"].to_numpy(float)
    for kind, (column, label) in zip(SERIES, labels.items(), strict=True):
        y = benefit[column].to_numpy(float)
        is_inside = y >= plot.y.low
        plot.add_line(x[is_inside], y[is_inside], kind, label)
    return plot.render()


def plot_densities(values: Mapping[str, FloatArray], axis: Axis, name: str, title: str) -> Markup:
    """Plot how values are distributed in each class, as shares of the class.

    Args:
        values: class -> float array of shape (n,); at most three. Values beyond the axis count in its outer
            bins.
        axis: of the values.
        name: of the chart, unique on the page.
        title: of the chart.
    """
    edges = np.linspace(axis.low, axis.high, 31)
    shares = {
        label: np.histogram(np.clip(of_class, axis.low, axis.high), edges)[0] / max(len(of_class), 1)
        for label, of_class in values.items()
    }
    top = max(float(share.max()) for share in shares.values())
    plot = Plot(
        name,
        title,
        f"Share of the images of each class by {axis.label}.",
        axis,
        Axis("share of the class", high=1.08 * top or 1.0, percent=True),
    )
    for kind, (label, share) in zip(SERIES, shares.items(), strict=False):
        plot.add_steps(edges, share, kind, label)
    return plot.render()


def plot_history(history: pd.DataFrame, metric: str, label: str) -> Markup:
    """Plot a metric by epoch, for training and validation.

    Args:
        history: epochs in their order, with `<metric>` and `val_<metric>`.
        metric: a column.
        label: what to write beside the axis.
    """
    columns = {"training": metric, "validation": f"val_{metric}"}
    shown = history[list(columns.values())].to_numpy(float)
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    pad = 0.05 * (high - low) or 0.05
    epochs = np.arange(1, len(history) + 1, dtype=float)
    plot = Plot(
        f"history-{metric}",
        f"{label} by epoch",
        f"{label} on training and validation images after each epoch.",
        Axis("epoch", low=1.0, high=max(2.0, float(len(history))), digits=0),
        Axis(label, low=low - pad, high=high + pad, digits=2),
        height=260,
    )
    for kind, (name, column) in zip(SERIES, columns.items(), strict=False):
        plot.add_line(epochs, history[column].to_numpy(float), kind, name)
        plot.add_dots(epochs, history[column].to_numpy(float), kind)
    return plot.render()


def _draw_ground(scale: Scale, margin: float | None) -> str:
    shade = ""
    if margin is not None:
        left, right = scale.place(-margin), scale.place(margin)
        shade = f'<rect class="margin" x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>'
    zero = scale.place(0)
    return f'{shade}<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="100%"/>'


def _strip(content: str, kind: str) -> Markup:
    return Markup(f'<svg class="strip {kind}" aria-hidden="true">{content}</svg>')  # noqa: S704


def _sign(value: float, digits: int) -> str:
    return "0" if value == 0 else f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _write_path(points: FloatArray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if len(points) else ""


def _thin(points: FloatArray) -> FloatArray:
    """Leave out points that lie on the line between those kept before and after them."""
    if len(points) < 3:
        return points
    kept = [0]
    for i in range(1, len(points) - 1):
        start, middle, end = points[kept[-1]], points[i], points[i + 1]
        along = end - start
        length = float(np.hypot(*along))
        offset = abs(along[0] * (middle - start)[1] - along[1] * (middle - start)[0]) / max(length, 1e-9)
        turns_back = float(np.dot(middle - start, end - middle)) < 0
        if offset > _STRAIGHT_PX or turns_back:
            kept.append(i)
    return points[[*kept, len(points) - 1]]

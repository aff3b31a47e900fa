"""The page a person reads."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pneumo.base.artifacts import write_text
from pneumo.report.figures import count_images


@dataclass(frozen=True)
class Report:
    """What the page and the model card show.

    Attributes:
        experiment: its name.
        data_title: names the data set.
        is_synthetic: the images are drawn, and the page says so at the top.
        classes: names.
        manifest: one row an image.
        tables: the report's CSV files by name: `leaderboard`, `classes`, `comparisons`, `external`, `probes`,
            `environments`, `seconds` and others.
        reference: the combo that the verdicts of the leaderboard compare with.
        best_run: name of the first run of the leaderboard's first row.
        recipe: of that run, as it was trained.
        details: tables of that run; `operating_points` is missing for more than two classes.
        findings: of the audit.
        set_aside: `path` and `reason` of the files that were set aside.
        missing_runs: names of runs that have no result.
        galleries: paths relative to the page, with a caption each.
        figures: heading -> paths relative to the page, with a caption each.
        params: text of params.yaml.
        input_hashes: name of a file -> SHA-256, of what was trained on.
    """

    experiment: str
    data_title: str
    is_synthetic: bool
    classes: tuple[str, ...]
    manifest: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    reference: str
    best_run: str
    recipe: Mapping[str, Any]
    details: Mapping[str, pd.DataFrame]
    findings: pd.DataFrame
    set_aside: pd.DataFrame
    missing_runs: list[str]
    galleries: list[tuple[str, str]]
    figures: Mapping[str, list[tuple[str, str]]]
    params: str
    input_hashes: Mapping[str, str]

    @property
    def counts(self) -> pd.DataFrame:
        """Number of images by split (rows) and subtype (columns)."""
        return count_images(self.manifest)

    @property
    def seconds(self) -> dict[tuple[str, str], float]:
        """Mean seconds of training of each combo and model, nan where unknown."""
        means = self.tables["seconds"].groupby(["combo", "model"])["train_s"].mean()
        return dict(means.items())  # type: ignore[arg-type]


def write_report(report: Report, path: Path) -> None:
    """Write the page as one HTML file that holds its pictures, and model_card.md beside it.

    Args:
        report: its figures are read from beside the page.
        path: of the page.
    """
    environment = Environment(
        loader=PackageLoader("pneumo.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"digits": _write_digits, "p_value": _write_p_value, "embed": _embed_png}
    write_text(path, environment.get_template("report.html").render(report=report, folder=path.parent))
    card = environment.get_template("model_card.md").render(report=report)
    write_text(path.parent / "model_card.md", card.lstrip())


def _write_digits(value: float, n: int = 3, sign: str = "") -> str:
    return "-" if pd.isna(value) else f"{value:{sign}.{n}f}"


def _write_p_value(p: float) -> str:
    if pd.isna(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _embed_png(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"

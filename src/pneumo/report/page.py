"""The page a person reads."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pneumo.base.artifacts import write_text


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        experiment: its name.
        data_title: names the data set.
        is_synthetic: the images are drawn, and the page says so at the top.
        classes: names.
        counts: images by split (rows) and subtype (columns).
        leaderboard: as `comparison.judge_combos` returns it, with `train_s` (mean seconds a run).
        by_class: as `comparison.tabulate_classes` returns it.
        comparisons: as `comparison.compare_combos` returns them.
        reference: the combo that the verdicts of the leaderboard speak of.
        operating_points: as `evaluate` writes them for one run of the leaderboard's first row, or None.
        findings: of the audit, as `stages.audit` writes them.
        external: as `comparison.score_set` returns them, one set below the other.
        probes: as `comparison.average_probes` returns them.
        galleries: paths relative to the page, with a caption each.
        missing_runs: names of runs that have no result.
        set_aside: `path` and `reason` of the files that were set aside.
        figures: heading -> paths relative to the page, with a caption each.
        params: text of params.yaml.
        provenance: name -> value, e.g. versions and hashes.
    """

    experiment: str
    data_title: str
    is_synthetic: bool
    classes: tuple[str, ...]
    counts: pd.DataFrame
    leaderboard: pd.DataFrame
    by_class: pd.DataFrame
    comparisons: pd.DataFrame
    reference: str
    operating_points: pd.DataFrame | None
    findings: pd.DataFrame
    external: pd.DataFrame
    probes: pd.DataFrame
    galleries: list[tuple[str, str]]
    missing_runs: list[str]
    set_aside: pd.DataFrame
    figures: dict[str, list[tuple[str, str]]]
    params: str
    provenance: dict[str, Any]


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

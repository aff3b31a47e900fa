"""The page a person reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

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
        leaderboard: as `comparison.rank_runs` returns it, with `train_s` (mean seconds a run).
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
    missing_runs: list[str]
    set_aside: pd.DataFrame
    figures: dict[str, list[tuple[str, str]]]
    params: str
    provenance: dict[str, Any]


def write_report(report: Report, path: Path) -> None:
    """Write the page as HTML; its pictures stay files beside it."""
    environment = Environment(
        loader=PackageLoader("pneumo"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["digits"] = lambda value, n=3: "-" if pd.isna(value) else f"{value:.{n}f}"
    write_text(path, environment.get_template("report.html").render(report=report))

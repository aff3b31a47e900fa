"""The files of a report: with pictures and names, or without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from pneumo.base import privacy
from pneumo.base.artifacts import write_file, write_folder
from pneumo.base.config import Params
from pneumo.base.paths import audit_dir, exploration_dir
from pneumo.report.page import Report, write_report


def read_lists(params: Params) -> dict[str, pd.DataFrame]:
    """Return the lists of `prepare` and `audit` by the path that they have in the report."""
    folders = {"data": exploration_dir(params.data_name), "audit": audit_dir(params.data_name)}
    paths = {f"{name}/{path.name}": path for name in folders for path in sorted(folders[name].glob("*.csv"))}
    return {name: pd.read_csv(path, dtype=str, keep_default_na=False) for name, path in paths.items()}


def publish(folder: Path, full: Path, report: Report, lists: dict[str, pd.DataFrame]) -> None:
    """Write a report.

    Args:
        folder: to write it into; of a private data set without pictures, names and paths.
        full: where the report of a private data set goes with them.
        report: what the page shows.
        lists: as `read_lists` returns them.
    """
    if report.is_private:
        write_files(full, report, lists)
        print(f"private: with pictures and names: {full / 'index.html'}")
        salt = privacy.read_salt()
        lists = {name: privacy.hide_names(table, salt) for name, table in lists.items()}
        report = hide_people(report, salt)
    write_files(folder, report, lists)


def write_files(folder: Path, report: Report, lists: dict[str, pd.DataFrame]) -> None:
    """Write the CSV files, the page and what belongs to it."""
    for name, table in report.tables.items():
        with write_file(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    for name in ("data", "audit"):
        with write_folder(folder / name) as part:
            for path, table in lists.items():
                if path.startswith(f"{name}/"):
                    table.to_csv(part / Path(path).name, index=False)
    write_report(report, folder)


def hide_people(report: Report, salt: bytes) -> Report:
    """Return a report without pictures, names and paths."""
    tables = {name: privacy.hide_names(table, salt) for name, table in report.tables.items()}
    content: Any = OmegaConf.to_container(OmegaConf.create(report.params_text), resolve=False)
    return replace(
        report,
        params_text=OmegaConf.to_yaml(OmegaConf.create(privacy.hide_paths(content))),
        tables=tables,
        set_aside=privacy.hide_names(report.set_aside, salt),
        galleries=[],
        combo_photos=[],
        samples=[],
        views=[],
    )

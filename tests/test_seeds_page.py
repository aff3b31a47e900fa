"""docs/seeds.md: made from the reports, and up to date."""

import json
import subprocess
import sys

import pandas as pd
import yaml

from import_graph import ROOT

ROWS = [
    {
        "system": "001",
        "row": "A",
        "claim": "75.7 %",
        "experiment": "e",
        "combo": "raw",
        "model": "a",
        "why": "x",
    },
    {
        "system": "001",
        "row": "B",
        "claim": "23.4 %",
        "experiment": "e",
        "combo": "raw",
        "model": "b",
        "why": "y",
    },
]


def make_page(*options):
    script = [sys.executable, ROOT / "docs/make_seeds.py", *options]
    subprocess.run(script, cwd=ROOT, check=True)


def test_the_page_in_the_repository_is_what_the_reports_say(tmp_path):
    make_page("--output", tmp_path / "seeds.md")
    assert (tmp_path / "seeds.md").read_text() == (ROOT / "docs/seeds.md").read_text()


def test_every_row_names_a_preset_of_this_project():
    for row in yaml.safe_load((ROOT / "docs/seeds.yaml").read_text()):
        params = yaml.safe_load((ROOT / f"conf/experiment/{row['experiment']}.yaml").read_text())
        assert row["combo"] in params["combos"]
        if row["model"] != "cnn_tuned":  # `pneumo tune` writes that recipe
            assert (ROOT / f"conf/model/{row['model']}.yaml").is_file()


def test_measured_and_not_measured(tmp_path):
    report = tmp_path / "reports/e"
    (report / "plots/confusion").mkdir(parents=True)
    numbers = {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85, "n_seeds": 3}
    numbers |= {"roc_auc": 0.9, "roc_auc_low": 0.88, "roc_auc_high": 0.92}
    pd.DataFrame([{"combo": "raw", "model": "a", **numbers}]).to_csv(report / "leaderboard.csv")
    actual = ["normal"] * 4 + ["bacterial"] * 2 + ["viral"] * 2
    predicted = ["normal"] * 3 + ["viral"] + ["bacterial"] * 2 + ["bacterial", "viral"]
    decisions = pd.DataFrame({"actual": actual, "predicted": predicted})
    decisions.to_csv(report / "plots/confusion/a_raw.csv", index=False)
    (tmp_path / "reports/examples").mkdir()
    means = {"random images": 0.94, "random patients": 0.9}
    means = {
        name: {"accuracy": value, "roc_auc": 0.9, "shared_patients": 0.4} for name, value in means.items()
    }
    content = {"means": means, "runs": {"random images": [{}, {}]}}
    (tmp_path / "reports/examples/resplit.json").write_text(json.dumps(content))
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(ROWS))
    make_page(
        *(
            "--reports",
            tmp_path / "reports",
            "--rows",
            tmp_path / "rows.yaml",
            "--output",
            tmp_path / "page.md",
        )
    )
    page = (tmp_path / "page.md").read_text()
    assert "| 001 | A | 75.7 % | 80.0 % (75.0 to 85.0) | 0.900 (0.880 to 0.920) | 3 |  | x |" in page
    assert "| 001 | B | 23.4 % | not run yet |  |  |  |  |" in page
    assert "| 001 | A | 0.750 / 1.000 | 1.000 / 0.667 | 0.500 / 0.500 |" in page
    assert "means over 2 seeds" in page
    assert "| random images | 94.0% | 0.900 | 40% |" in page
    assert "not the shared patients" not in page
